//! Choices that bytes make: a fuzzer's, or random ones.

use arbitrary::Unstructured;

/// Choices, one after the other. When the bytes have ended, it is always the first one, so that fewer
/// bytes make something simpler.
#[derive(Debug)]
pub struct Choices<'a>(Unstructured<'a>);

impl<'a> Choices<'a> {
    /// The choices that `bytes` make.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.int_in_range(0..=end - 1).unwrap_or_default()
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// So many bytes, or as many as are left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let len = len.min(self.0.len());
        self.0.bytes(len).unwrap_or_default()
    }

    /// Up to `max` bytes of text.
    pub fn text(&mut self, max: usize) -> String {
        let len = self.below(max + 1);
        String::from_utf8_lossy(self.bytes(len)).into_owned()
    }

    /// Whether there are bytes left.
    pub fn more(&self) -> bool {
        !self.0.is_empty()
    }

    /// Changes a few bytes of a text: cuts it, replaces some, brings some in.
    pub fn damage(&mut self, text: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(text.len() + 1);
            let to = (at + self.below(4)).min(text.len());
            match self.below(4) {
                0 => text.truncate(at),
                1 => drop(text.drain(at..to)),
                2 => drop(text.splice(at..to, self.bytes(2).iter().copied())),
                _ => drop(text.splice(at..at, self.bytes(3).iter().copied())),
            }
        }
    }
}
