//! Variable expansion and word splitting, as moby's shell lexer does them: quotes, the escape character and
//! `$name`, `${name}` with `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` `//`.
//!
//! Must not look anywhere but into the [`Env`] it is given.  Which words of an instruction are expanded is the
//! lowering's business.

mod env;
mod pattern;

pub use env::Env;
use pattern::Pattern;

/// Deepest nesting of `${…:-${…}}`: stops input that would exhaust the stack.
const DEEPEST: usize = 50;
/// Longest result of one expansion: stops `ENV b=$a$a`, repeated, from doubling until memory is gone.
const LONGEST: usize = 1 << 20;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// `${` without `}`.
    #[error("`${{` lacks its `}}`")]
    MissingBrace,
    /// `${name/pattern` without the second slash.
    #[error("`${{name/pattern/replacement}}` lacks its second `/`")]
    MissingSlash,
    /// `${}`, `${:…}`, `${{…}`.
    #[error("`${{` is not followed by a name")]
    BadSubstitution,
    /// `${name^…}` and the like.
    #[error("`{0}` is not a modifier of `${{…}}`")]
    Modifier(String),
    /// `${name:?message}` of a variable that is unset or empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it.
        message: String,
    },
    /// A quote without its partner.
    #[error("`{0}` lacks the quote that ends it")]
    Quote(char),
    /// `${name#\x}` and the like.
    #[error("`{0}` is not a pattern: `\\` may stand before `*`, `?` and `\\` only")]
    Pattern(String),
    /// Nested deeper than anybody writes.
    #[error("`${{…}}` is nested deeper than {DEEPEST} levels")]
    TooDeep,
    /// The result is longer than anything may be.
    #[error("the expanded text is longer than {LONGEST} bytes")]
    TooLong,
}

/// How text is processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    /// `\`, or what the `escape` directive says.
    pub escape: char,
    /// Whether quotes stay in the result.
    pub raw_quotes: bool,
    /// Whether escape characters stay in the result.
    pub raw_escapes: bool,
    /// Whether quotes mean nothing (here-documents).
    pub ignore_quotes: bool,
    /// Whether references to unset variables stay as written.
    pub keep_unset: bool,
}

/// What became of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text as one word.
    pub text: String,
    /// The text split at spaces that were not quoted.
    pub words: Vec<String>,
    /// Variables that were found.
    pub used: Vec<String>,
    /// Variables that were not.
    pub missing: Vec<String>,
}

impl ExpandError {
    /// Returns how to mend it, where that does not depend on the instruction.
    pub fn hint(&self) -> String {
        match self {
            Self::Modifier(_) => {
                "the modifiers are `:-` `-` `:+` `+` `:?` `?` `#` `##` `%` `%%` `/` and `//`".into()
            }
            Self::BadSubstitution => {
                "write `${name}`; put the escape character before a `$` that is meant as it is"
                    .into()
            }
            Self::Required { name, .. } => {
                format!("declare `ARG {name}` and give `--build-arg {name}=…`, or set it with ENV")
            }
            Self::Quote(quote) => format!(
                "close it, or put the escape character before a `{quote}` that is meant as it is"
            ),
            _ => String::new(),
        }
    }
}

impl Expander {
    /// Makes one for ordinary words.
    pub const fn new(escape: char) -> Self {
        Self {
            escape,
            raw_quotes: false,
            raw_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
        }
    }

    /// Makes one for the content of here-documents.
    pub const fn heredoc() -> Self {
        Self {
            ignore_quotes: true,
            ..Self::new('\\')
        }
    }

    /// Expands `text`.
    pub fn expand(&self, text: &str, env: &Env) -> Result<Expanded, ExpandError> {
        let mut run = Run {
            how: self,
            rest: text.chars().peekable(),
            env,
            raw_escapes: self.raw_escapes,
            depth: 0,
            used: Vec::new(),
            missing: Vec::new(),
        };
        let Text { all, words } = run.until(None, self.raw_escapes)?;
        Ok(Expanded {
            text: all,
            words: words.finish(),
            used: run.used,
            missing: run.missing,
        })
    }
}

/// Words being gathered.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    /// Adds a character that separates words where it is a space.
    fn add(&mut self, c: char) {
        match c.is_whitespace() {
            true if !self.word.is_empty() => self.done.push(std::mem::take(&mut self.word)),
            true => {}
            false => self.word.push(c),
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

#[derive(Default)]
struct Text {
    all: String,
    words: Words,
}

struct Run<'a> {
    how: &'a Expander,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    env: &'a Env,
    raw_escapes: bool,
    depth: usize,
    used: Vec<String>,
    missing: Vec<String>,
}

impl Run<'_> {
    /// Processes up to `stop`, which is taken, or to the end.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Text, ExpandError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(ExpandError::TooDeep);
        }
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until_inner(stop);
        self.raw_escapes = outer;
        self.depth -= 1;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<Text, ExpandError> {
        let mut out = Text::default();
        while let Some(&c) = self.rest.peek() {
            if Some(c) == stop {
                self.rest.next();
                return Ok(out);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    value.chars().for_each(|c| out.words.add(c));
                    out.all.push_str(&value);
                }
                '\'' | '"' if !self.how.ignore_quotes => {
                    let value = if c == '"' {
                        self.double_quoted()?
                    } else {
                        self.single_quoted()?
                    };
                    out.words.word.push_str(&value);
                    out.all.push_str(&value);
                }
                _ => self.plain(&mut out),
            }
            if out.all.len() > LONGEST {
                return Err(ExpandError::TooLong);
            }
        }
        if stop.is_none() {
            Ok(out)
        } else {
            Err(ExpandError::MissingBrace)
        }
    }

    /// Takes one ordinary character, or an escaped one.
    fn plain(&mut self, out: &mut Text) {
        let Some(c) = self.rest.next() else { return };
        if c != self.how.escape {
            out.words.add(c);
            out.all.push(c);
            return;
        }
        if self.raw_escapes {
            out.words.word.push(c);
            out.all.push(c);
        }
        if let Some(escaped) = self.rest.next() {
            out.words.word.push(escaped);
            out.all.push(escaped);
        }
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        let quote = self.rest.next();
        out.extend(quote.filter(|_| self.how.raw_quotes));
        loop {
            match self.rest.next() {
                None => return Err(ExpandError::Quote('\'')),
                Some('\'') => {
                    out.extend(quote.filter(|_| self.how.raw_quotes));
                    return Ok(out);
                }
                Some(c) => out.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut out = String::new();
        let quote = self.rest.next();
        out.extend(quote.filter(|_| self.how.raw_quotes));
        loop {
            if out.len() > LONGEST {
                return Err(ExpandError::TooLong);
            }
            match self.rest.peek().copied() {
                None => return Err(ExpandError::Quote('"')),
                Some('"') => {
                    self.rest.next();
                    out.extend(quote.filter(|_| self.how.raw_quotes));
                    return Ok(out);
                }
                Some('$') => out.push_str(&self.dollar()?),
                Some(c) => {
                    self.rest.next();
                    self.quoted_char(c, &mut out);
                }
            }
        }
    }

    /// Within double quotes the escape character protects `"`, `$` and itself, and stays before anything else.
    fn quoted_char(&mut self, c: char, out: &mut String) {
        if c != self.how.escape {
            return out.push(c);
        }
        if self.raw_escapes {
            out.push(c);
        }
        match self.rest.peek().copied() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == self.how.escape => {
                out.extend(self.rest.next())
            }
            Some(_) => out.push(c),
        }
    }

    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.rest.next();
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.value(&name) {
                None if self.how.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        match self.rest.peek() {
            None => Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => Err(ExpandError::BadSubstitution),
            Some(_) => self.braced(),
        }
    }

    /// Processes the inside of `${…}`.
    fn braced(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        match self.rest.next() {
            None => Err(ExpandError::MissingBrace),
            Some('}') => Ok(match self.value(&name) {
                None if self.how.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.rest.next().ok_or(ExpandError::MissingBrace)?;
                self.modified(&name, modifier, true)
            }
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, modifier, false),
            Some('/') => self.replaced(&name),
            Some(other) => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    fn modified(
        &mut self,
        name: &str,
        modifier: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandError> {
        let written = if empty_is_unset {
            format!(":{modifier}")
        } else {
            modifier.to_string()
        };
        let cuts = matches!(modifier, '#' | '%');
        if cuts && empty_is_unset {
            return Err(ExpandError::Modifier(written));
        }
        let word = self.until(Some('}'), cuts)?.all;
        // A text for the unset case says that the variable may well be unset, so it is not missed.
        let value = if matches!(modifier, '-' | '+' | '?') {
            self.look_up(name)
        } else {
            self.value(name)
        };
        if value.is_none() && self.how.keep_unset {
            return Ok(format!("${{{name}{written}{word}}}"));
        }
        let set = value.clone().filter(|v| !(empty_is_unset && v.is_empty()));
        match modifier {
            '-' => Ok(set.unwrap_or(word)),
            '+' => Ok(set.map(|_| word).unwrap_or_default()),
            '?' => set.ok_or_else(|| {
                let default = if value.is_none() {
                    "is not allowed to be unset"
                } else {
                    "is not allowed to be empty"
                };
                let message = if word.is_empty() {
                    default.to_owned()
                } else {
                    word
                };
                ExpandError::Required {
                    name: name.to_owned(),
                    message,
                }
            }),
            '#' | '%' => trimmed(&word, modifier, &value.unwrap_or_default()),
            _ => Err(ExpandError::Modifier(written)),
        }
    }

    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let every = self.rest.next_if_eq(&'/').is_some();
        let missing_slash = |e| {
            if e == ExpandError::MissingBrace {
                ExpandError::MissingSlash
            } else {
                e
            }
        };
        let pattern = self.until(Some('/'), true).map_err(missing_slash)?.all;
        let replacement = self.until(Some('}'), true)?.all;
        let value = self.value(name);
        if value.is_none() && self.how.keep_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let compiled = Pattern::new(&pattern).ok_or(ExpandError::Pattern(pattern))?;
        compiled
            .replace(&value.unwrap_or_default(), &replacement, every, LONGEST)
            .ok_or(ExpandError::TooLong)
    }

    /// Reads a name: letters, digits and `_`; or digits alone; or one special parameter.
    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(&c) = self.rest.peek() {
            if name.is_empty() && c.is_numeric() {
                while let Some(digit) = self.rest.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
                return name;
            }
            if name.is_empty() && "@*#?-$!".contains(c) {
                self.rest.next();
                return c.to_string();
            }
            if !c.is_alphanumeric() && c != '_' {
                break;
            }
            self.rest.next();
            name.push(c);
        }
        name
    }

    /// Returns a variable's value, and remembers that it was used or missed.
    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.look_up(name);
        if value.is_none() {
            remember(&mut self.missing, name);
        }
        value
    }

    /// Returns a variable's value, and remembers that it was used.
    fn look_up(&mut self, name: &str) -> Option<String> {
        let value = self.env.get(name).map(str::to_owned);
        if value.is_some() {
            remember(&mut self.used, name);
        }
        value
    }
}

/// Adds a name to the few that messages show.
fn remember(list: &mut Vec<String>, name: &str) {
    if list.len() < 32 && !list.iter().any(|n| n == name) {
        list.push(name.to_owned());
    }
}

/// Cuts the shortest, or for a doubled modifier the longest, match of the pattern off one end.
fn trimmed(word: &str, modifier: char, value: &str) -> Result<String, ExpandError> {
    let (longest, word) = match word.strip_prefix(modifier) {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let pattern = Pattern::new(word).ok_or_else(|| ExpandError::Pattern(word.to_owned()))?;
    Ok(if modifier == '#' {
        pattern.trim_start(value, longest)
    } else {
        pattern.trim_end(value, longest)
    })
}

#[cfg(test)]
mod tests;
