//! Handing spans to the collector: a bounded queue, a thread of its own, and a word in the log when it does not take them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor,
};

use super::config::{TraceConfig, address};
use super::span::Value;
use crate::model::code::{Code, Fault};
use crate::model::trace::TraceParent;

/// Spans that wait at most; what comes beyond is dropped.
const WAITING_MAX: usize = 8_192;
/// How often they are handed over.
const EVERY: Duration = Duration::from_secs(1);
/// How often a collector that does not take them is spoken of at most.
const SPOKEN_EVERY: Duration = Duration::from_secs(600);

/// A span whose work is done.
#[derive(Debug)]
pub(super) struct Ended {
    pub own: TraceParent,
    pub parent: Option<u64>,
    pub name: &'static str,
    pub began: SystemTime,
    pub ended: Option<SystemTime>,
    pub notes: Vec<(&'static str, Value)>,
    /// Spans of the same trace.
    pub links: Vec<u64>,
    pub failed: Option<Code>,
}

/// The way to a collector.
pub(super) struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl Exporter {
    /// Starts the thread that hands over. Nothing is asked of the collector yet.
    pub fn start(config: &TraceConfig) -> Result<Exporter, Fault> {
        let refuse = |text: String| Fault::new(Code::ConfigInvalid, format!("trace.endpoint: {text}"));
        let endpoint = config.endpoint.as_deref().and_then(address).ok_or_else(|| refuse("is no address".into()))?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint.clone())
            .with_timeout(config.timeout)
            .build()
            .map_err(|error| refuse(error.to_string()))?;
        let exporter = Telling { exporter, endpoint, told: Mutex::default() };
        let limits = BatchConfigBuilder::default().with_max_queue_size(WAITING_MAX).with_scheduled_delay(EVERY).build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(limits).build();
        processor.set_resource(&Resource::builder().with_service_name(config.service_name.clone()).build());
        let scope = InstrumentationScope::builder("smsfleet").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Exporter { processor, scope })
    }

    /// Takes a span; drops it when too many wait.
    pub fn take(&self, span: Ended) {
        let context = |id: u64| {
            let (trace, span) = (TraceId::from(span.own.trace_id), SpanId::from(id));
            SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
        };
        let mut links = SpanLinks::default();
        links.links = span.links.iter().map(|id| Link::with_context(context(*id))).collect();
        let ended = span.ended.unwrap_or_else(SystemTime::now);
        self.processor.on_end(SpanData {
            span_context: context(span.own.span_id),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: span.name.into(),
            start_time: span.began,
            end_time: ended.max(span.began),
            attributes: span.notes.into_iter().map(|(name, value)| attribute(name, value)).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: span.failed.map_or(Status::Unset, |code| Status::error(code.as_str())),
            instrumentation_scope: self.scope.clone(),
        });
    }

    /// Hands over what waits, for at most `limit`.
    pub fn stop(&self, limit: Duration) {
        if let Err(error) = self.processor.shutdown_with_timeout(limit) {
            tracing::debug!(%error, "not every span was handed over");
        }
    }
}

fn attribute(name: &'static str, value: Value) -> KeyValue {
    match value {
        Value::Number(number) => KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Word(word) => KeyValue::new(name, word),
        Value::Name(name_of) => KeyValue::new(name, name_of),
    }
}

/// Says once in a while that the collector does not take spans, and when it does again.
#[derive(Debug)]
struct Telling<E> {
    exporter: E,
    endpoint: String,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    failing: bool,
    last: Option<Instant>,
}

impl Told {
    /// Takes in how a hand-over went. What is to be said: that it fails, or that it works again.
    fn hears(&mut self, failed: bool, now: Instant) -> Option<bool> {
        let is_time = self.last.is_none_or(|last| now.saturating_duration_since(last) >= SPOKEN_EVERY);
        match (failed, self.failing) {
            (true, _) if is_time => {
                (self.failing, self.last) = (true, Some(now));
                Some(true)
            }
            (false, true) => {
                self.failing = false;
                Some(false)
            }
            _ => None,
        }
    }
}

impl<E: SpanExporter> SpanExporter for Telling<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let heard = self.told.lock().unwrap_or_else(PoisonError::into_inner).hears(result.is_err(), Instant::now());
        match (heard, &result) {
            (Some(true), Err(error)) => {
                tracing::warn!(endpoint = self.endpoint, %error, "spans are lost: the collector does not take them; check trace.endpoint");
            }
            (Some(false), _) => tracing::info!(endpoint = self.endpoint, "the collector takes spans again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_is_spoken_of_seldom() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut said = vec![];
        for second in 0..1_300u64 {
            said.extend(told.hears(true, start + Duration::from_secs(second)).map(|failing| (second, failing)));
        }
        assert_eq!(said, [(0, true), (600, true), (1_200, true)]);
        assert_eq!(told.hears(false, start + Duration::from_secs(1_300)), Some(false));
        assert_eq!(told.hears(false, start + Duration::from_secs(1_301)), None);
        // One that comes and goes is no reason to say more.
        assert_eq!(told.hears(true, start + Duration::from_secs(1_302)), None);
    }
}
