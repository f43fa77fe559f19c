//! Every record of a batch, with its outcome and history, in pages: any size in the memory of one lane.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::clicks::{ClickReader, delivered_at};
use super::line::{Event, RecipientFilter, RecipientLine};
use super::recount::pack_key;
use super::walk::{History, Lane, REPORTS_PER_PAGE, WindowEvent};
use crate::model::account::Account;
use crate::model::answer::Answer;
use crate::model::batch::BatchRow;
use crate::model::code::Code;
use crate::model::id::{LaneKey, Msisdn, RangeKey};
use crate::model::lane::lane_of;
use crate::model::outcome::Outcome;
use crate::model::pack::{ManifestPack, Message, SmsDeliveryPack};
use crate::model::record::{RangeState, Reject, RejectKind};
use crate::model::time::Timestamp;
use crate::ports::receipts::MatchedReport;
use crate::ports::{StoreError, Stores};

/// The records of a batch, a page at a time: first those that never became a message, in the order of the source, then the
/// recipients by lane and number.
pub struct RecipientPages {
    stores: Stores,
    row: BatchRow,
    accounts: Arc<BTreeMap<String, Account>>,
    filter: RecipientFilter,
    now: Timestamp,
    rejects: VecDeque<(RangeKey, u32, u32)>,
    lanes: VecDeque<u8>,
    open: Option<OpenLane>,
    clicks: Option<ClickReader>,
    /// Recipients of the next page, at most.
    page: usize,
}

/// Recipients of the first page, and of any page, at most: each may be twice as long as the one before. Whoever waits for the
/// first lines does not wait for a whole pack of them, and a long listing is not written in small pieces.
const PAGE: (usize, usize) = (32, 256);

/// A lane in the middle of a listing.
struct OpenLane {
    lane: Box<Lane>,
    packs: VecDeque<ManifestPack>,
    pack: Option<OpenPack>,
}

/// A pack in the middle of a listing.
struct OpenPack {
    content: Option<Arc<SmsDeliveryPack>>,
    first_seq: u32,
    reports: HashMap<u32, Vec<MatchedReport>>,
    /// The places that are still to be shown.
    places: std::ops::Range<u32>,
}

impl RecipientPages {
    /// Begins a listing. `now` decides which receipts were waited for long enough.
    pub async fn new(
        stores: Stores,
        row: BatchRow,
        accounts: Arc<BTreeMap<String, Account>>,
        filter: RecipientFilter,
        now: Timestamp,
    ) -> Result<RecipientPages, StoreError> {
        let mut rejects = VecDeque::new();
        if filter.wants_rejects() {
            for (key, range) in stores.ranges.list(row.batch.batch_id).await? {
                if let RangeState::Done(_) = range.row.state {
                    rejects.push_back((key, range.row.attempt, 0));
                }
            }
        }
        let lanes = match (row.sealed.is_some() && filter.wants_messages(), filter.number) {
            (false, _) => VecDeque::new(),
            (true, Some(number)) if row.lanes.is_power_of_two() => VecDeque::from([lane_of(number, row.lanes)]),
            (true, _) => (0..row.lanes).map(|lane| lane as u8).collect(),
        };
        let clicks = match row.batch.contains_url() && !lanes.is_empty() {
            true => Some(ClickReader::open(&stores, row.batch.batch_id).await?),
            false => None,
        };
        Ok(RecipientPages { stores, row, accounts, filter, now, rejects, lanes, open: None, clicks, page: PAGE.0 })
    }

    /// Leaves out what the caller knows to hold nothing: the messages, or the records that never became one.
    pub(super) fn narrow(&mut self, messages: bool, rejects: bool) {
        if !messages {
            self.lanes.clear();
        }
        if !rejects {
            self.rejects.clear();
        }
    }

    /// The next lines; `None` at the end. A page may be empty.
    pub async fn next(&mut self) -> Result<Option<Vec<RecipientLine>>, StoreError> {
        if let Some((range, attempt, n)) = self.rejects.front_mut() {
            let rejects = self.stores.rejects.get(*range, *attempt, *n).await?;
            *n += 1;
            if rejects.is_empty() {
                self.rejects.pop_front();
            }
            let filter = &self.filter;
            return Ok(Some(rejects.iter().filter(|reject| shows(filter, reject)).map(reject_line).collect()));
        }
        if let Some(open) = &mut self.open {
            let mut pack = match open.pack.take() {
                Some(pack) => pack,
                None => {
                    let Some(pack) = open.packs.pop_front() else {
                        self.open = None;
                        return Ok(Some(vec![]));
                    };
                    if !open.lane.may_show(&self.filter, &pack) {
                        return Ok(Some(vec![]));
                    }
                    OpenPack::read(&self.stores, open.lane.key, &pack).await?
                }
            };
            let (mut lines, codes) = pack.page(&self.accounts, &mut open.lane, &self.filter, self.now, self.page);
            self.page = (self.page * 2).min(PAGE.1);
            open.pack = Some(pack).filter(|pack| !pack.places.is_empty());
            if let Some(clicks) = &self.clicks {
                for (line, (code, delivered)) in lines.iter_mut().zip(codes) {
                    let counts = clicks.of_code(&code, delivered).await?;
                    (line.clicks, line.machine_clicks) = (counts.clicks, counts.machine_clicks);
                    line.first_click = counts.first_click.map(|first| first.to_string());
                }
            }
            return Ok(Some(lines));
        }
        let Some(lane) = self.lanes.pop_front() else { return Ok(None) };
        let key = LaneKey { batch: self.row.batch.batch_id, lane };
        let history = match self.filter.number {
            None => History::All,
            // Of one person's lane what happened to the others is not kept, and one that has nobody of the number is not read.
            Some(number) => match places_of(&self.stores, key, number).await? {
                places if places.is_empty() => return Ok(Some(vec![])),
                places => History::Of(places),
            },
        };
        let lane = Lane::load(&self.stores, &self.accounts, key, &history).await?;
        // Nor are the packs of the others.
        let has = |pack: &&ManifestPack| (pack.first_seq..pack.first_seq + pack.count).any(|seq| history.keeps(seq));
        let packs = lane.manifest.iter().flat_map(|manifest| manifest.packs.iter().filter(has)).cloned().collect();
        self.open = Some(OpenLane { lane: Box::new(lane), packs, pack: None });
        Ok(Some(vec![]))
    }
}

/// The places of a number in a lane, by the small columns of its packs.
pub(super) async fn places_of(stores: &Stores, lane: LaneKey, number: Msisdn) -> Result<BTreeSet<u32>, StoreError> {
    let Some(manifest) = stores.manifests.get(lane).await? else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    for pack in &manifest.packs {
        // What cannot be read cannot be shown; the batch's own report counts its people.
        let head = StoreError::unless_damaged(stores.packs.head(pack_key(lane, pack)).await)?.unwrap_or_default();
        // Not by bisection: once a number was erased, a pack is not in order any more. A place behind the pack's end would be
        // somebody else's.
        let mine = head.numbers.iter().take(pack.count as usize).enumerate().filter(|(_, known)| **known == number.0);
        found.extend(mine.map(|(at, _)| pack.first_seq + at as u32));
    }
    Ok(found)
}

impl Lane {
    /// Whether anybody of a pack may be shown, for all that its windows say: a pack of others is not read.
    fn may_show(&self, filter: &RecipientFilter, pack: &ManifestPack) -> bool {
        (pack.first_seq..pack.first_seq + pack.count).any(|seq| {
            let (outcome, _) = self.outcome(seq);
            // Only an account's taking has a delivery, and only a late receipt settles who is in doubt.
            let is_told = filter.deliveries.is_empty() || outcome == Outcome::Accepted;
            let fits = filter.outcomes.is_empty() || filter.outcomes.contains(&outcome);
            // Who was left of a pack that cannot be read has failed.
            let is_left = self.is_done() && matches!(outcome, Outcome::Open | Outcome::Canceled);
            let may_fail = is_left && filter.allows(Outcome::Failed, None);
            (fits && is_told) || may_fail || self.is_in_doubt(seq)
        })
    }
}

fn shows(filter: &RecipientFilter, reject: &Reject) -> bool {
    let outcome = match reject.kind {
        RejectKind::Rejected => Outcome::Rejected,
        RejectKind::Suppressed => Outcome::Suppressed,
    };
    let fits = filter.number.is_none_or(|number| reject.fits(number));
    fits && filter.allows(outcome, None)
}

fn reject_line(reject: &Reject) -> RecipientLine {
    RecipientLine {
        number: reject.number.clone(),
        record: reject.record,
        line: reject.line,
        outcome: match reject.kind {
            RejectKind::Rejected => Outcome::Rejected,
            RejectKind::Suppressed => Outcome::Suppressed,
        },
        code: reject.code,
        detail: reject.detail.clone(),
        delivery: None,
        account: None,
        message_ids: vec![],
        segments: 0,
        text: None,
        clicks: 0,
        machine_clicks: 0,
        first_click: None,
        history: vec![],
    }
}

impl OpenPack {
    async fn read(stores: &Stores, lane: LaneKey, pack: &ManifestPack) -> Result<OpenPack, StoreError> {
        let (first_seq, end) = (pack.first_seq, pack.first_seq + pack.count);
        let content = StoreError::unless_damaged(stores.packs.get(pack_key(lane, pack)).await)?;
        let reports = reports_of(stores, lane, first_seq, end).await?;
        Ok(OpenPack { content, first_seq, reports, places: first_seq..end })
    }

    /// The next lines, and for each its code and when the receipt came that says DELIVRD.
    fn page(
        &mut self,
        accounts: &BTreeMap<String, Account>,
        lane: &mut Lane,
        filter: &RecipientFilter,
        now: Timestamp,
        most: usize,
    ) -> (Vec<RecipientLine>, Vec<(String, Option<Timestamp>)>) {
        let (mut lines, mut codes) = (Vec::new(), Vec::new());
        for seq in self.places.by_ref().take(most) {
            let mine = self.reports.get(&seq).map_or(&[][..], |reports| &reports[..]);
            let delivery = lane.take_reports(accounts, seq, mine, now);
            let message = message_at(self.content.as_deref(), seq - self.first_seq);
            if filter.number.is_some_and(|number| message.is_none_or(|message| message.number != number)) {
                continue;
            }
            let (mut outcome, mut code) = lane.outcome(seq);
            if self.content.is_none() && lane.is_done() && matches!(outcome, Outcome::Open | Outcome::Canceled) {
                (outcome, code) = (Outcome::Failed, Some(Code::StoreCorrupt));
            }
            if filter.allows(outcome, delivery) {
                let mut line = line_of(lane, seq, message, mine, filter.text);
                (line.outcome, line.code, line.delivery) = (outcome, code, delivery);
                if outcome != Outcome::Failed {
                    line.detail.clear();
                }
                if outcome == Outcome::Suppressed && message.is_some_and(|message| message.number.is_erased()) {
                    line.detail = "its number was erased before it was sent".into();
                }
                lines.push(line);
                let link = message.and_then(|message| message.link.as_ref());
                codes.push((link.map(|link| link.code.clone()).unwrap_or_default(), delivered_at(mine)));
            }
        }
        (lines, codes)
    }
}

fn message_at(content: Option<&SmsDeliveryPack>, index: u32) -> Option<&Message> {
    content.and_then(|content| content.messages.get(index as usize))
}

async fn reports_of(
    stores: &Stores,
    lane: LaneKey,
    first: u32,
    end: u32,
) -> Result<HashMap<u32, Vec<MatchedReport>>, StoreError> {
    let mut reports: HashMap<u32, Vec<MatchedReport>> = HashMap::new();
    let mut next = first;
    while next < end {
        let page = stores.receipts.list(lane, next, REPORTS_PER_PAGE).await?;
        let Some(last) = page.last().map(|report| report.part.recipient.seq) else { break };
        for report in page.into_iter().filter(|report| report.part.recipient.seq < end) {
            reports.entry(report.part.recipient.seq).or_default().push(report);
        }
        next = last.saturating_add(1);
    }
    Ok(reports)
}

fn line_of(lane: &Lane, seq: u32, message: Option<&Message>, reports: &[MatchedReport], text: bool) -> RecipientLine {
    let person = lane.people.get(seq as usize);
    let start = lane.events.partition_point(|event| event.seq < seq);
    let events: Vec<&WindowEvent> = lane.events[start..].iter().take_while(|event| event.seq == seq).collect();
    let ids = events.iter().filter_map(|event| match &event.answered {
        Some((_, Answer::Accepted { id })) => Some(id.to_string()),
        _ => None,
    });
    RecipientLine {
        number: message.map_or_else(String::new, |message| plus(message.number)),
        record: message.map_or(0, |message| message.record),
        line: message.map_or(0, |message| message.line),
        outcome: Outcome::Open,
        code: None,
        detail: person.map_or_else(String::new, |person| lane.detail_of(person).to_owned()),
        delivery: None,
        account: person.and_then(|person| lane.account_of(person)).map(str::to_owned),
        message_ids: ids.collect(),
        segments: message.map_or(0, |message| message.segments),
        text: message.filter(|_| text).map(|message| message.body.clone()),
        clicks: 0,
        machine_clicks: 0,
        first_click: None,
        history: history(lane, &events, reports),
    }
}

fn history(lane: &Lane, events: &[&WindowEvent], reports: &[MatchedReport]) -> Vec<Event> {
    let answers = events.iter().map(|event| (event.at, window_event(lane, event)));
    let receipts = reports.iter().map(|matched| {
        let report = &matched.report;
        let detail = if report.error.is_empty() {
            report.rung.stat().to_owned()
        } else {
            format!("{} err:{}", report.rung.stat(), report.error)
        };
        let event = Event {
            at: report.received.to_string(),
            what: "receipt".into(),
            part: matched.part.part.wrapping_add(1),
            account: matched.account.clone(),
            message_id: report.message_id.clone(),
            detail,
        };
        (report.received, event)
    });
    let mut history: Vec<(Timestamp, Event)> = answers.chain(receipts).collect();
    history.sort_by_key(|(at, _)| *at);
    history.into_iter().map(|(_, event)| event).collect()
}

fn window_event(lane: &Lane, event: &WindowEvent) -> Event {
    let account = lane.accounts.get(usize::from(event.account)).cloned().unwrap_or_default();
    let base = Event { at: event.at.to_string(), account, ..Event::default() };
    let Some((part, answer)) = &event.answered else {
        return Event { what: "judged".into(), detail: "handed over, for all anybody knows, and never answered".into(), ..base };
    };
    let (what, message_id, detail) = match answer {
        Answer::Accepted { id } => ("accepted", id.to_string(), String::new()),
        Answer::Failed { code, detail } => ("failed", String::new(), format!("{code} {detail}").trim().to_owned()),
        Answer::NotNow { kind, detail } => (kind.name(), String::new(), detail.to_string()),
        Answer::NoAnswer => ("no_answer", String::new(), String::new()),
        Answer::NotSent => ("not_sent", String::new(), String::new()),
        Answer::Suppressed => ("suppressed", String::new(), String::new()),
        Answer::Expired => ("expired", String::new(), String::new()),
    };
    Event { what: what.into(), part: part + 1, message_id, detail, ..base }
}

fn plus(number: Msisdn) -> String {
    if number.is_erased() {
        return "erased".into();
    }
    format!("+{}", number.digits())
}
