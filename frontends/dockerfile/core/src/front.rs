//! The way from bytes to instructions, which every call on a Dockerfile begins with.
//!
//! Looks nothing up.  The next step is [`crate::stages`].

use crate::ast::{self, File};
use crate::diagnostic::{Diagnostic, Diagnostics, Span, rules};
use crate::lexer::directive::key_and_value;
use crate::lexer::{Checks, Directives, json, lex};
use crate::lower::host::Request;
use crate::source::Source;

/// Build argument that takes the place of the directive `check`.
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";
/// Build argument that takes the place of the directive `syntax`.
const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// A Dockerfile as instructions.
#[derive(Debug)]
pub(crate) struct Front {
    /// Its text.
    pub source: Source,
    /// Its instructions.
    pub file: File,
    /// What is asked of checks.
    pub checks: Checks,
    /// What was found so far.
    pub diagnostics: Diagnostics,
}

/// Understands the lines of a Dockerfile; errors within lines are among the messages, and the rest is there all the same.
pub(crate) fn read(request: &Request) -> Result<Front, Vec<Diagnostic>> {
    let mut diagnostics = Diagnostics::default();
    let source = match Source::new(&request.file, &request.content) {
        Ok(source) => source,
        Err(refused) => {
            let (source, at, error) = *refused;
            let span = source.span(at, at + 1);
            diagnostics.add(
                &rules::INVALID_ENCODING,
                &source,
                span,
                error.to_string(),
                String::new(),
            );
            return Err(diagnostics.into_list());
        }
    };
    // Messages of the lexer can be left out too, so what the directives say has to be known first.
    let directives = lex_directives(&source);
    let checks = checks(&directives, request, &source, &mut diagnostics);
    diagnostics.configure(&checks.skip, &checks.experimental);
    let lexed = lex(&source, &mut diagnostics);
    if let Some((value, line)) = foreign_syntax(&source) {
        let span = line_span(&source, line);
        unsupported(&value, &source, span, &mut diagnostics);
        return Err(diagnostics.into_list());
    }
    syntax(&lexed.directives, request, &source, &mut diagnostics);
    let file = ast::parse(lexed, &source, &mut diagnostics);
    Ok(Front {
        source,
        file,
        checks,
        diagnostics,
    })
}

/// Reads the directives alone; what is wrong with them is told when the whole file is read.
fn lex_directives(source: &Source) -> Directives {
    crate::lexer::directive::read(source, &mut Diagnostics::default())
}

/// Returns the value of a build argument; the last one given counts.
fn argument<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let given = request.build_args.iter().rev().find(|(n, _)| n == name);
    given.map(|(_, value)| value.as_str())
}

/// Returns the place of a directive's line.
fn line_span(source: &Source, line: usize) -> Span {
    let start = source.line_start(line);
    source.span(start, start + source.line(line).trim_end().len())
}

/// Reads what is asked of checks: by build argument, else by the directive.
fn checks(
    directives: &Directives,
    request: &Request,
    source: &Source,
    diagnostics: &mut Diagnostics,
) -> Checks {
    let (text, span) = match (argument(request, CHECK_ARGUMENT), &directives.check) {
        (Some(text), _) => (text, Span::default()),
        (None, Some((text, line))) => {
            let span = line_span(source, *line);
            let (counts, rest) = text.split_once(' ').unwrap_or((text, ""));
            if !rest.trim().is_empty() {
                diagnostics.add(
                    &rules::UNKNOWN_CHECK,
                    source,
                    span,
                    format!(
                        "`{}` does not count: the directive ends at its first space",
                        rest.trim()
                    ),
                    "write it without spaces: `# check=skip=RuleA,RuleB;error=true`".into(),
                );
            }
            (counts, span)
        }
        (None, None) => return Checks::default(),
    };
    match Checks::parse(text) {
        Ok(checks) => {
            for (name, near) in checks.unknown() {
                diagnostics.add(
                    &rules::UNKNOWN_CHECK,
                    source,
                    span,
                    format!("there is no check `{name}`"),
                    near,
                );
            }
            checks
        }
        Err(why) => {
            let hint = "write `# check=skip=RuleA,RuleB;error=true`".into();
            diagnostics.add(&rules::DIRECTIVE, source, span, why, hint);
            Checks::default()
        }
    }
}

/// Refuses a file that asks for another frontend.
fn syntax(
    directives: &Directives,
    request: &Request,
    source: &Source,
    diagnostics: &mut Diagnostics,
) {
    let (value, span) = match (argument(request, SYNTAX_ARGUMENT), &directives.syntax) {
        (Some(value), _) => (value, Span::default()),
        (None, Some((value, line))) => (value.as_str(), line_span(source, *line)),
        (None, None) => return,
    };
    unsupported(value, source, span, diagnostics);
}

/// Refuses a frontend that is not this one.
fn unsupported(value: &str, source: &Source, span: Span, diagnostics: &mut Diagnostics) {
    let image = value.split_whitespace().next().unwrap_or("");
    let bare = image.strip_prefix("docker.io/").unwrap_or(image);
    let name = bare.split(['@', ':']).next().unwrap_or("");
    if name.is_empty() || name == "docker/dockerfile" || name == "docker/dockerfile-upstream" {
        return;
    }
    let hint =
        "remove the directive, or give the frontend as a component with `--frontend FILE.wasm`"
            .into();
    let message =
        format!("the file asks for the frontend `{image}`, which is not the built-in one");
    diagnostics.add(&rules::UNSUPPORTED_SYNTAX, source, span, message, hint);
}

/// Finds what a file that is no Dockerfile says about its frontend, as docker looks for it: `// syntax=…` in the first line, or a
/// JSON object with a member `syntax`.  Returns it with its line.
fn foreign_syntax(source: &Source) -> Option<(String, usize)> {
    let first = usize::from(
        source
            .line(0)
            .trim_start_matches('\u{feff}')
            .starts_with("#!"),
    );
    let text = source.line(first).trim_start_matches('\u{feff}');
    if let Some(comment) = text.strip_prefix("//") {
        let (key, value) = key_and_value(comment)?;
        return (key == "syntax").then(|| (value.to_owned(), first));
    }
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let text: String = (first..source.line_count())
        .map(|index| source.line(index))
        .collect();
    Some((json::member(&text, "syntax")?, first))
}
