//! Messages about the Dockerfile: what they are called, where they point, how they are gathered.
//!
//! Mirrors `stepwell-model`'s diagnostics; a guest may not depend on crates of the host.  Nothing here decides
//! what is wrong: the parser and the lowering do.

use crate::source::Source;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// The build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// A range of the file; lines and columns count from 1, columns are Unicode scalar values, the end is exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Last line.
    pub end_line: u32,
    /// Column after the last one.
    pub end_column: u32,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The rule's name.
    pub code: &'static str,
    /// What is wrong: lower case, no full stop, values in backticks.
    pub message: String,
    /// Name of the file as the user gave it.
    pub file: String,
    /// Place in the file; line 0 means none.
    pub span: Span,
    /// The source lines of the span.
    pub source: String,
    /// How to mend it, or empty.
    pub hint: String,
}

/// One kind of message.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Name, as `# check=skip=` and the documentation spell it.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it says, in a sentence.
    pub docs: &'static str,
}

macro_rules! rules {
    ($($constant:ident $code:literal $severity:ident $docs:literal)*) => {
        $(#[doc = $docs] pub static $constant: Rule = Rule { code: $code, severity: Severity::$severity, docs: $docs };)*
        /// Every rule, for documentation and tests.
        pub static ALL: &[&Rule] = &[$(&$constant),*];
    };
}

/// The table of all rules.  Warnings bear the names that BuildKit's checks have.
pub mod rules {
    use super::{Rule, Severity};

    rules! {
        INVALID_ENCODING "InvalidEncoding" Error "The file is not UTF-8, or holds NUL bytes, or has no line ends that are understood."
        EMPTY_FILE "EmptyFile" Error "The file has no instruction, or no stage."
        DIRECTIVE "InvalidDirective" Error "A parser directive is given twice or has a value that it may not have."
        WARNINGS "WarningsDenied" Error "There are warnings, and the file asks for none."
        DIRECTIVE_NAME "MisspeltDirective" Warning "A comment in the first lines looks like a parser directive."
        UNSUPPORTED_SYNTAX "UnsupportedSyntax" Error "`# syntax=` asks for a frontend that is not the built-in one."
        UNKNOWN_INSTRUCTION "UnknownInstruction" Error "The first word of a line is not an instruction."
        MISSING_ARGUMENT "MissingArgument" Error "An instruction has fewer arguments than it needs."
        TOO_MANY_ARGUMENTS "TooManyArguments" Error "An instruction has more arguments than it takes."
        INVALID_ARGUMENT "InvalidArgument" Error "An argument has a form that the instruction does not take."
        UNKNOWN_FLAG "UnknownFlag" Error "The instruction has no such flag."
        INVALID_FLAG "InvalidFlag" Error "A flag lacks its value, has a wrong one, or is given twice."
        UNTERMINATED_HEREDOC "UnterminatedHeredoc" Error "The line that ends a here-document is missing."
        INVALID_JSON "InvalidJson" Error "A JSON array holds something other than strings."
        INSTRUCTION_OUTSIDE_STAGE "InstructionOutsideStage" Error "Only ARG may stand before the first FROM."
        INVALID_STAGE_NAME "InvalidStageName" Error "A stage name has characters that it may not have."
        INVALID_REFERENCE "InvalidReference" Error "A base image's name is not an image reference."
        INVALID_EXPANSION "InvalidExpansion" Error "A variable cannot be expanded."
        UNKNOWN_STAGE "UnknownStage" Error "No stage has the name or number that is asked for."
        STAGE_ORDER "StageOrder" Error "A stage uses itself or one that comes after it."
        IMAGE_NOT_RESOLVED "ImageNotResolved" Error "The base image cannot be found or read."
        FOREIGN_PLATFORM "ForeignPlatform" Error "A step of another platform cannot run on this machine."
        CONTEXT "ContextUnreadable" Error "A file of a build context cannot be read."
        REFUSED "Refused" Error "The builder refused what the Dockerfile asks for."
        TOO_LARGE "TooLarge" Error "The Dockerfile or what it expands to is larger than it may be."
        STAGE_NAME_CASING "StageNameCasing" Warning "Stage names should be lower case."
        FROM_AS_CASING "FromAsCasing" Warning "`AS` should have the case of `FROM`."
        NO_EMPTY_CONTINUATION "NoEmptyContinuation" Warning "An instruction that goes on over several lines should have no empty line."
        CONSISTENT_CASING "ConsistentInstructionCasing" Warning "Instructions should all be upper case, or all lower case."
        DUPLICATE_STAGE_NAME "DuplicateStageName" Warning "Two stages have the same name."
        RESERVED_STAGE_NAME "ReservedStageName" Warning "`scratch` and `context` should not be names of stages."
        JSON_ARGS "JSONArgsRecommended" Warning "CMD and ENTRYPOINT should be JSON arrays, so that signals reach the program."
        MAINTAINER "MaintainerDeprecated" Warning "MAINTAINER is deprecated."
        UNDEFINED_ARG_IN_FROM "UndefinedArgInFrom" Warning "FROM uses a variable that no ARG before it declares."
        WORKDIR_RELATIVE "WorkdirRelativePath" Warning "A relative WORKDIR depends on what the base image says."
        UNDEFINED_VAR "UndefinedVar" Warning "A variable is used that is not defined."
        MULTIPLE_INSTRUCTIONS "MultipleInstructionsDisallowed" Warning "Only the last CMD, ENTRYPOINT and HEALTHCHECK of a stage counts."
        LEGACY_KEY_VALUE "LegacyKeyValueFormat" Warning "`ENV name value` should be written `ENV name=value`."
        BASE_PLATFORM "InvalidBaseImagePlatform" Warning "The base image is of another platform than asked for."
        REDUNDANT_PLATFORM "RedundantTargetPlatform" Warning "`--platform=$TARGETPLATFORM` is the default."
        SECRETS "SecretsUsedInArgOrEnv" Warning "ARG and ENV end up in the image: no place for secrets."
        CONST_PLATFORM "FromPlatformFlagConstDisallowed" Warning "`FROM --platform` should not be a constant."
        EXPOSE_PROTO_CASING "ExposeProtoCasing" Warning "The protocol of EXPOSE should be lower case."
        DEFAULT_ARG_IN_FROM "InvalidDefaultArgInFrom" Warning "FROM names no image where the arguments that it uses have their defaults."
        COPY_IGNORED "CopyIgnoredFile" Warning "COPY or ADD takes a file that the ignore file leaves out."
        DEFINITION_DESCRIPTION "InvalidDefinitionDescription" Warning "The comment above FROM or ARG should begin with the name of the stage or argument (experimental)."
        EMPTY_COMMAND "EmptyCommand" Note "RUN has no command."
        IGNORED_FLAG "IgnoredFlag" Note "A flag of an instruction that looks at no flags."
        NO_SOURCE_DATE "NoSourceDate" Note "`SOURCE_DATE_EPOCH` stands for the time of something that has none."
        UNKNOWN_CHECK "UnknownCheck" Note "`check=` names a check that does not exist."
        EXPOSE_FORMAT "ExposeInvalidFormat" Warning "EXPOSE takes ports of the container only; addresses and ports of the host are dropped."
        UNUSED_BUILD_ARG "BuildArgNotDeclared" Warning "A `--build-arg` is given that no ARG declares."
        BROKEN_TRIGGER "BrokenTrigger" Warning "What ONBUILD leaves is an instruction that will be refused."
        SEVERAL_SOURCES "CopyDestinationNotDirectory" Warning "With several sources the destination has to be a directory and should end in a slash."
    }

    /// The checks that are made only where the file or the user asks for them (`check=experimental=…`).
    pub static EXPERIMENTAL: &[&Rule] = &[&DEFINITION_DESCRIPTION];

    /// The warnings that docker does not have: `check=error=true` is not about them, so that what docker builds is built here.
    pub static OWN: &[&Rule] = &[
        &DIRECTIVE_NAME,
        &UNUSED_BUILD_ARG,
        &SEVERAL_SOURCES,
        &BROKEN_TRIGGER,
    ];
}

/// How many messages are kept: a hostile file cannot fill the host's memory with them.
const MOST_MESSAGES: usize = 100;

/// Gathers messages of one file.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    errors: usize,
    skipped: Vec<&'static str>,
    experimental: Vec<&'static str>,
}

/// Returns the codes of the rules that a list names; `all` names every one.
///
/// There are few rules, and a hostile list is long: asking what this returns costs no more than there are rules.
pub fn named<'a>(list: impl IntoIterator<Item = &'a str>) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for name in list {
        let is_named = |r: &&&Rule| name == r.code || name == "all";
        for rule in rules::ALL.iter().filter(is_named) {
            if !codes.contains(&rule.code) {
                codes.push(rule.code);
            }
        }
    }
    codes
}

impl Diagnostics {
    /// Leaves warnings of the first rules out from now on, and lets in those of the second ones, which are experimental.
    pub fn configure(&mut self, skipped: &[String], experimental: &[String]) {
        self.skipped = named(skipped.iter().map(String::as_str));
        self.experimental = named(experimental.iter().map(String::as_str));
    }

    /// Says whether warnings of a rule are let in.  Those that are experimental are asked for, the others are left out.
    fn admits(&self, rule: &'static Rule) -> bool {
        match rules::EXPERIMENTAL.contains(&rule) {
            true => self.experimental.contains(&rule.code),
            false => !self.skipped.contains(&rule.code),
        }
    }

    /// Adds a message; `span` points into `source`.
    pub fn add(
        &mut self,
        rule: &'static Rule,
        source: &Source,
        span: Span,
        message: String,
        hint: String,
    ) {
        if self.admits(rule) || rule.severity == Severity::Error {
            self.add_admitted(rule, source, span, message, hint);
        }
    }

    /// Adds a message whatever is said about its rule.
    pub fn add_admitted(
        &mut self,
        rule: &'static Rule,
        source: &Source,
        span: Span,
        message: String,
        hint: String,
    ) {
        self.errors += usize::from(rule.severity == Severity::Error);
        if self.list.len() < MOST_MESSAGES {
            let (file, source) = (source.name().to_owned(), source.excerpt(span));
            self.list.push(Diagnostic {
                severity: rule.severity,
                code: rule.code,
                message,
                file,
                span,
                source,
                hint,
            });
        }
    }

    /// Says whether an error is among them.
    pub fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Says whether no further message would be kept, so that looking for more is in vain.
    pub fn full(&self) -> bool {
        self.list.len() >= MOST_MESSAGES && self.failed()
    }

    /// Returns the messages in the order of the file.
    pub fn into_list(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| (d.span.line, d.span.column));
        self.list
    }

    /// Returns the messages so far, in the order in which they were found.
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }
}

/// Returns the candidate nearest to `word`, if one is near enough to be a slip of the keyboard.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    if word.len() > 64 {
        return None;
    }
    let length = word.chars().count();
    // One letter is one slip away from every other.
    let allowed = if length <= 4 { 1 } else { 2 }.min(length.saturating_sub(1));
    let scored = candidates
        .into_iter()
        .take(1_000)
        .filter(|c| c.len() <= 64)
        .map(|c| (distance(&word, &c.to_lowercase()), c));
    scored
        .filter(|(d, _)| *d <= allowed)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Returns `did you mean …?` for the nearest candidate, else nothing.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates)
        .map(|c| format!("did you mean `{c}`?"))
        .unwrap_or_default()
}

/// Counts the insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut best = (last[j] + usize::from(a[i] != b[j]))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let words = ["RUN", "COPY", "ENTRYPOINT", "FROM"];
        for (typed, want) in [
            ("RNU", Some("RUN")),
            ("CPOY", Some("COPY")),
            ("ENTRYPIONT", Some("ENTRYPOINT")),
            ("form", Some("FROM")),
            ("XYZ", None),
            ("F", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, words), want, "{typed}");
        }
    }

    #[test]
    fn rule_names_are_unique() {
        let mut codes: Vec<_> = rules::ALL.iter().map(|r| r.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), rules::ALL.len());
    }
}
