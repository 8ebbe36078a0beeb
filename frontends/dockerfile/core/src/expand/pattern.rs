//! The patterns of `${name#pattern}` and its relatives: `*` and `?`, no classes; neither crosses a line end.
//!
//! A simulation of all possibilities side by side: time is the product of both lengths, whatever the stars.

/// Longest pattern, in characters: bounds that product.
const LONGEST: usize = 1_024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Star,
}

/// A pattern ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    /// Compiles a pattern; none where an escape is wrong or it is too long.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut chars = text.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::One,
                '\\' => match chars.peek() {
                    // The escape protected the character from ending `${…}`; it is no part of the pattern.
                    Some('}' | '/') => continue,
                    Some('*' | '?' | '\\') => Token::Char(chars.next()?),
                    _ => return None,
                },
                other => Token::Char(other),
            });
        }
        (tokens.len() <= LONGEST).then_some(Self(tokens))
    }

    /// Returns `value` without the shortest or longest beginning that matches.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let cut = self.end_at_start(&chars, longest).unwrap_or(0);
        chars[cut..].iter().collect()
    }

    /// Returns `value` without the shortest or longest end that matches.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> String {
        let reversed: Vec<char> = value.chars().rev().collect();
        let backwards = Self(self.0.iter().rev().copied().collect());
        let cut = backwards.end_at_start(&reversed, longest).unwrap_or(0);
        reversed[cut..].iter().rev().collect()
    }

    /// Returns `value` with the first match, or every one, replaced; none where that grows beyond `limit`.
    pub(super) fn replace(
        &self,
        value: &str,
        with: &str,
        every: bool,
        limit: usize,
    ) -> Option<String> {
        let chars: Vec<char> = value.chars().collect();
        let (mut out, mut at, mut after_match) = (String::new(), 0, false);
        while let Some((start, end)) = self.find(&chars, at) {
            // An empty match right behind another match does not count.
            if !(start == end && after_match && start == at) {
                out.extend(&chars[at..start]);
                out.push_str(with);
                if !every {
                    at = end;
                    break;
                }
            }
            after_match = true;
            at = end;
            if start == end {
                let Some(next) = chars.get(at) else { break };
                out.push(*next);
                at += 1;
                after_match = false;
            }
            if out.len() > limit {
                return None;
            }
        }
        out.extend(&chars[at.min(chars.len())..]);
        (out.len() <= limit).then_some(out)
    }

    /// Returns where the shortest or longest match that begins at the start ends.
    fn end_at_start(&self, chars: &[char], longest: bool) -> Option<usize> {
        let mut states = vec![None; self.0.len() + 1];
        states[0] = Some(0);
        self.skip_stars(&mut states);
        let mut best = None;
        for at in 0..=chars.len() {
            if states[self.0.len()].is_some() {
                best = Some(at);
                if !longest {
                    break;
                }
            }
            match chars.get(at) {
                Some(c) if states.iter().any(Option::is_some) => states = self.step(&states, *c),
                _ => break,
            }
        }
        best
    }

    /// Returns the match that begins first, at or behind `from`, and of those the longest.
    fn find(&self, chars: &[char], from: usize) -> Option<(usize, usize)> {
        let mut states: Vec<Option<usize>> = vec![None; self.0.len() + 1];
        let mut best: Option<(usize, usize)> = None;
        for at in from..=chars.len() {
            if best.is_none() {
                states[0] = Some(states[0].map_or(at, |s| s.min(at)));
                self.skip_stars(&mut states);
            }
            if let Some(start) = states[self.0.len()]
                && best.is_none_or(|(s, _)| start <= s)
            {
                best = Some((start, at));
            }
            // What began behind the best match can no longer win.
            states
                .iter_mut()
                .filter(|s| s.is_some_and(|s| best.is_some_and(|(b, _)| s > b)))
                .for_each(|s| *s = None);
            match chars.get(at) {
                Some(c) if best.is_none() || states.iter().any(Option::is_some) => {
                    states = self.step(&states, *c)
                }
                _ => break,
            }
        }
        best
    }

    /// Moves every state (each with the place where its match began) over one character.
    fn step(&self, states: &[Option<usize>], c: char) -> Vec<Option<usize>> {
        let mut next = vec![None; states.len()];
        for (at, token) in self.0.iter().enumerate() {
            let target = match token {
                Token::Char(wanted) if *wanted == c => at + 1,
                Token::One if c != '\n' => at + 1,
                Token::Star if c != '\n' => at,
                _ => continue,
            };
            next[target] = earlier(next[target], states[at]);
        }
        self.skip_stars(&mut next);
        next
    }

    fn skip_stars(&self, states: &mut [Option<usize>]) {
        for (at, token) in self.0.iter().enumerate() {
            if *token == Token::Star {
                states[at + 1] = earlier(states[at + 1], states[at]);
            }
        }
    }
}

fn earlier(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
