//! Taking an input apart: what is not there is zero or empty, so that any octets are an input.

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next octet.
    pub fn byte(&mut self) -> u8 {
        self.some(1).first().copied().unwrap_or(0)
    }

    /// The next four octets, as a number.
    pub fn number(&mut self) -> u32 {
        self.some(4).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    /// At most so many octets.
    pub fn some(&mut self, count: usize) -> &'a [u8] {
        let (some, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        some
    }

    /// Octets behind their length, which has two octets.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.some(length)
    }

    /// A line without its end; what is no UTF-8 is replaced.
    pub fn line(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let line = String::from_utf8_lossy(self.some(end)).into_owned();
        self.some(1);
        line
    }

    /// The rest as text; what is no UTF-8 is replaced.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}
