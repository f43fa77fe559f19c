//! Where in a trace a piece of work belongs: what travels beside it, in the form of the W3C (`traceparent`).

use std::fmt;
use std::str::FromStr;

use super::hex;

/// The trace that a token belongs to, and the span that caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span that caused the work; never 0.
    pub span_id: u64,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceParent {
    /// A place in a trace; `None` when one of the ids is 0, which the standard forbids.
    pub fn new(trace_id: u128, span_id: u64, sampled: bool) -> Option<TraceParent> {
        (trace_id != 0 && span_id != 0).then_some(TraceParent { trace_id, span_id, sampled })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

/// What was given is not a `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotATraceParent;

impl fmt::Display for NotATraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a traceparent looks like 00-TRACE-SPAN-FLAGS, in lower-case hexadecimal digits")
    }
}

impl std::error::Error for NotATraceParent {}

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    /// Reads version 00, and of later versions the part they share with it (W3C Trace Context, 4.3).
    fn from_str(text: &str) -> Result<TraceParent, NotATraceParent> {
        let mut fields = text.splitn(5, '-');
        let version = field(fields.next(), 2)?;
        let (trace_id, span_id, flags) = (field(fields.next(), 32)?, field(fields.next(), 16)?, field(fields.next(), 2)?);
        let has_more = fields.next().is_some();
        if version == 0xff || version == 0 && has_more {
            return Err(NotATraceParent);
        }
        let span_id = u64::try_from(span_id).map_err(|_| NotATraceParent)?;
        TraceParent::new(trace_id, span_id, flags & 1 == 1).ok_or(NotATraceParent)
    }
}

fn field(field: Option<&str>, digits: usize) -> Result<u128, NotATraceParent> {
    field.filter(|field| field.len() == digits).and_then(hex::number).ok_or(NotATraceParent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn it_reads_back_what_it_wrote() {
        let parent = TraceParent::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7, true);
        assert_eq!(GOLDEN.parse().ok(), parent);
        assert_eq!(parent.map(|parent| parent.to_string()).as_deref(), Some(GOLDEN));
        let unsampled = TraceParent::new(1, 2, false).expect("its ids are not 0");
        assert_eq!(unsampled.to_string(), "00-00000000000000000000000000000001-0000000000000002-00");
        assert_eq!(unsampled.to_string().parse(), Ok(unsampled));
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let later = GOLDEN.replacen("00", "01", 1);
        assert!(later.parse::<TraceParent>().is_ok());
        assert!(format!("{later}-more").parse::<TraceParent>().is_ok());
        assert!(format!("{GOLDEN}-more").parse::<TraceParent>().is_err(), "version 00 has nothing behind its flags");
        assert_eq!(GOLDEN.replace("-01", "-ff").parse::<TraceParent>().map(|parent| parent.sampled), Ok(true));
        assert_eq!(GOLDEN.replace("-01", "-02").parse::<TraceParent>().map(|parent| parent.sampled), Ok(false));
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        for wrong in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(NotATraceParent), "{wrong}");
        }
    }
}
