//! The limit of a step's output: the beginning is shown as it comes, and of what is too much the end, because that is where it
//! says what went wrong.

use std::collections::VecDeque;

use stepwell_model::event::Stream;

/// How much of the end is kept.
const TAIL: usize = 16 << 10;

/// The output of one step.
pub struct Clip {
    limit: u64,
    shown: u64,
    left_out: u64,
    tail: VecDeque<u8>,
}

impl Clip {
    /// Shows `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            shown: 0,
            left_out: 0,
            tail: VecDeque::new(),
        }
    }

    /// Passes on what may be shown, and keeps the end of the rest.
    pub fn pass(&mut self, stream: Stream, bytes: &[u8], show: &mut dyn FnMut(Stream, &[u8])) {
        let room = usize::try_from(self.limit - self.shown).unwrap_or(usize::MAX);
        let (fits, rest) = bytes.split_at(bytes.len().min(room));
        if !fits.is_empty() {
            self.shown += fits.len() as u64;
            show(stream, fits);
        }
        self.left_out += rest.len() as u64;
        self.tail.extend(&rest[rest.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
    }

    /// Ends the output: says what was left out, and shows the end.
    pub fn end(mut self, show: &mut dyn FnMut(Stream, &[u8])) {
        let kept = self.tail.make_contiguous();
        let hidden = self.left_out - kept.len() as u64;
        if hidden > 0 {
            let limit = self.limit;
            let note = format!(
                "\n[output clipped: {hidden} bytes are left out here, the limit is {limit} (`--step-output`)]\n"
            );
            show(Stream::Stderr, note.as_bytes());
        }
        if !kept.is_empty() {
            show(Stream::Stdout, kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(limit: u64, pieces: &[&[u8]]) -> String {
        let (mut clip, mut text) = (Clip::new(limit), Vec::new());
        for piece in pieces {
            clip.pass(Stream::Stdout, piece, &mut |_, b| text.extend_from_slice(b));
        }
        clip.end(&mut |_, b| text.extend_from_slice(b));
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn what_fits_is_shown_as_it_is() {
        assert_eq!(shown(6, &[b"abc", b"def"]), "abcdef");
        // Nothing is lost yet: no word of it.
        assert_eq!(shown(4, &[b"abc", b"def"]), "abcdef");
        assert_eq!(shown(0, &[b"abc"]), "abc");
    }

    #[test]
    fn the_middle_is_left_out() {
        let (long, last) = ([b'x'; 3 * TAIL], [b'~'; TAIL]);
        let text = shown(2, &[b"ab", &long, b"z", &last]);
        assert!(
            text.starts_with("ab\n[output clipped: 49153 bytes"),
            "{text}"
        );
        assert!(text.contains("`--step-output`"));
        assert_eq!(text.matches('~').count(), TAIL);
        assert!(!text.contains('z') && !text.contains("xx"));
    }
}
