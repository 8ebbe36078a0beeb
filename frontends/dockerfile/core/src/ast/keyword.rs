//! The table of instructions.  A new one is a row here, a variant, and an arm in `parse` and in the lowering.

macro_rules! keywords {
    ($($variant:ident $text:literal $docs:literal)*) => {
        /// An instruction's keyword.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Keyword {
            $(#[doc = $docs] $variant),*
        }

        impl Keyword {
            /// All instructions.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the keyword in upper case.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

keywords! {
    Add "ADD" "Copies files, unpacks local archives."
    Arg "ARG" "Declares a build argument."
    Cmd "CMD" "Sets the default command."
    Copy "COPY" "Copies files."
    Entrypoint "ENTRYPOINT" "Sets the program that always runs."
    Env "ENV" "Sets environment variables."
    Expose "EXPOSE" "Names ports."
    From "FROM" "Begins a stage on a base."
    Healthcheck "HEALTHCHECK" "Says how to check a container."
    Label "LABEL" "Sets labels."
    Maintainer "MAINTAINER" "Sets the author."
    Onbuild "ONBUILD" "Leaves an instruction for whoever builds on the image."
    Run "RUN" "Runs a command."
    Shell "SHELL" "Sets the shell of the shell forms."
    Stopsignal "STOPSIGNAL" "Sets the signal that stops a container."
    User "USER" "Sets the user."
    Volume "VOLUME" "Names mount points."
    Workdir "WORKDIR" "Sets and makes the working directory."
}

impl Keyword {
    /// Finds the instruction that `word` names, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|k| k.text().eq_ignore_ascii_case(word))
    }
}
