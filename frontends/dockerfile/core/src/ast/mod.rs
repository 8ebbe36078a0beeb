//! The instructions of a Dockerfile as data, with their places.
//!
//! Says what is written, not what it means: nothing is expanded or looked up here.  The next step is
//! [`crate::stages`].

mod arguments;
pub mod duration;
pub mod flags;
pub mod keyword;
pub mod mount;
mod parse;
mod print;

pub use flags::Flag;
pub use keyword::Keyword;
pub use parse::{Fault, ignores_flags, parse, parse_line, report, trigger_faults};

use crate::lexer::split::Word;
use crate::lexer::{Directives, Heredoc, Line};

/// A whole file.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// Its parser directives.
    pub directives: Directives,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
    /// The line (from 0) of the first FROM that could not be understood: what comes behind it is in some stage.
    pub broken_from: Option<usize>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// What it says.
    pub node: Node,
    /// Where it stands.
    pub line: Line,
}

/// What an instruction says, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Which instruction.
    pub keyword: Keyword,
    /// Its keyword as written.
    pub written: Word,
    /// Its flags, in order.
    pub flags: Vec<Flag>,
    /// Its arguments.
    pub body: Body,
    /// Its here-documents.
    pub heredocs: Vec<Heredoc>,
}

/// The arguments of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// FROM.
    From {
        /// The base: an image, a stage or `scratch`.
        image: Word,
        /// `AS` as written, and the name.
        name: Option<(Word, Word)>,
    },
    /// ARG.
    Arg(Vec<Declaration>),
    /// RUN, CMD, ENTRYPOINT.
    Command(Command),
    /// SHELL.
    Shell(Vec<String>),
    /// COPY and ADD.
    Transfer {
        /// What is copied.
        sources: Vec<TransferSource>,
        /// Where to.
        dest: Word,
    },
    /// ENV and LABEL.
    Pairs(Vec<Pair>),
    /// EXPOSE and VOLUME.
    Words(Vec<Word>),
    /// USER, WORKDIR, STOPSIGNAL and MAINTAINER.
    Text(Word),
    /// HEALTHCHECK: nothing means NONE.
    Healthcheck(Option<Command>),
    /// ONBUILD: the trigger, here-documents included, as it goes into the image's configuration.
    Onbuild(String),
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(Word),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// A name, with a default where there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// The name.
    pub name: Word,
    /// The default, quotes and variables still in it.
    pub value: Option<Word>,
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub key: Word,
    /// The value, quotes and variables still in it.
    pub value: Word,
    /// Whether a space stands between them, not `=`.
    pub legacy: bool,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferSource {
    /// A path, a pattern or an address.
    Path(Word),
    /// The here-document with this index; the word that names it.
    Heredoc(usize, Word),
}

impl Node {
    /// Returns the value of a flag that is given at most once.
    pub fn flag(&self, name: &str) -> Option<&Word> {
        self.flags
            .iter()
            .find(|f| f.row.name == name)
            .map(|f| &f.value)
    }

    /// Returns the value of a flag that says something: an empty one is as none.
    pub fn given_flag(&self, name: &str) -> Option<&Word> {
        self.flag(name).filter(|w| !w.text.is_empty())
    }

    /// Returns all values of a flag.
    pub fn flag_list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Word> {
        self.flags
            .iter()
            .filter(move |f| f.row.name == name)
            .map(|f| &f.value)
    }

    /// Says whether a flag without a value is given, and not as `=false`.
    pub fn flag_is_set(&self, name: &str) -> bool {
        self.flag(name).is_some_and(|v| v.text == "true")
    }
}

#[cfg(test)]
mod tests;
