//! The ids of a trace in log lines: `trace_id` and `span_id` of the innermost span that has them, in every JSON line.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The ids of a span, as texts.
#[derive(Clone, Default)]
struct Ids {
    trace_id: String,
    span_id: String,
}

impl Visit for Ids {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "trace_id" => self.trace_id = format!("{value:?}"),
            "span_id" => self.span_id = format!("{value:?}"),
            _ => {}
        }
    }
}

/// Remembers the ids of spans that have some.
pub struct KeepIds;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for KeepIds {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().fields().field("trace_id").is_none() {
            return;
        }
        let mut ids = Ids::default();
        attributes.record(&mut ids);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(ids);
        }
    }
}

/// Writes lines as `F` does, one JSON object each, with the ids behind its own fields.
pub struct WithIds<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let ids = context.event_scope().and_then(|mut spans| spans.find_map(|span| span.extensions().get::<Ids>().cloned()));
        let Some(Ids { trace_id, span_id }) = ids else { return self.0.format_event(context, writer, event) };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        match line.trim_end().strip_suffix('}') {
            Some(object) => writeln!(writer, "{object},\"trace_id\":\"{trace_id}\",\"span_id\":\"{span_id}\"}}"),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a lock").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Kept;

        fn make_writer(&self) -> Kept {
            self.clone()
        }
    }

    #[test]
    fn lines_inside_a_span_carry_its_ids_at_any_depth() {
        let kept = Kept::default();
        let lines =
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(kept.clone()).map_event_format(WithIds);
        let subscriber = tracing_subscriber::registry().with(KeepIds).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("outside");
            let _outer = tracing::error_span!("trace", trace_id = %"0a", span_id = %"01").entered();
            let _inner = tracing::info_span!("task", name = "x").entered();
            tracing::warn!(lane = 3, "inside");
            let _innermost = tracing::error_span!("trace", trace_id = %"0a", span_id = %"02").entered();
            tracing::warn!("below");
        });
        let text = String::from_utf8(kept.0.lock().expect("a lock").clone()).expect("text");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
        let ids: Vec<_> =
            lines.iter().map(|line| (line["message"].as_str(), line["trace_id"].as_str(), line["span_id"].as_str())).collect();
        let expected =
            [(Some("outside"), None, None), (Some("inside"), Some("0a"), Some("01")), (Some("below"), Some("0a"), Some("02"))];
        assert_eq!(ids, expected);
        assert_eq!(lines[1]["lane"], 3);
    }
}
