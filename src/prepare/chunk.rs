//! Some records at a time: first their numbers, then, of those that are not suppressed, their messages. Pure functions.

use crate::model::code::Code;
use crate::model::id::Msisdn;
use crate::model::limits::TEXT_CHARS_MAX;
use crate::model::pack::{LinkSpot, Message};
use crate::model::record::{Record, Reject, RejectKind, RowFault};
use crate::model::text::beginning;
use crate::model::text::{Encoding, compose_into, split};
use crate::runtime::mutation::{self, Bug};
use crate::runtime::short_code::ShortCode;

use super::number;
use super::recipe::Recipe;
use super::samples::Samples;

/// Characters of a cell that are kept with a reject, so that the operator finds the row.
const CELL_CHARS_KEPT: usize = 40;

/// A record whose number is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Number of the record in the source.
    pub record: u64,
    /// Line in the source.
    pub line: u64,
    /// Its number.
    pub number: Msisdn,
    /// Its fields.
    pub fields: Vec<String>,
}

/// What became of a chunk's records. Kept from chunk to chunk, so that its buffers are.
#[derive(Default)]
pub struct Found {
    /// Messages, in the order of the records.
    pub messages: Vec<Message>,
    /// Records that never became a message.
    pub rejects: Vec<Reject>,
    /// The longest and the strangest text so far.
    pub samples: Samples,
    body: String,
    whole: String,
    codes: ChunkCodes,
}

/// The short codes of a chunk: those of its first to its last candidate.
#[derive(Default)]
struct ChunkCodes {
    first_record: u64,
    codes: Vec<ShortCode>,
}

impl ChunkCodes {
    fn make(&mut self, recipe: &Recipe, candidates: &[Candidate]) {
        self.codes.clear();
        let (Some(codes), [first, ..]) = (&recipe.codes, candidates) else { return };
        self.first_record = first.record;
        let last = candidates.last().map_or(first.record, |last| last.record);
        // A record's place in the range is its number's place in the range's block.
        codes.append(first.record - recipe.first_record, last - first.record + 1, &mut self.codes);
    }

    fn of(&self, record: u64) -> Option<String> {
        let place = usize::try_from(record.checked_sub(self.first_record)?).ok()?;
        self.codes.get(place).map(ShortCode::to_string)
    }
}

/// The records whose number is valid; the others are rejected.
pub fn candidates(recipe: &Recipe, records: Vec<Record>, found: &mut Found) -> Vec<Candidate> {
    let mut candidates = Vec::with_capacity(records.len());
    for Record { record, line, fields } in records {
        let fields = match fields {
            Ok(fields) => fields,
            Err(fault) => {
                found.rejects.push(rejected(record, line, fault, ""));
                continue;
            }
        };
        let cell = fields.get(recipe.number_column).map_or("", String::as_str);
        match number::parse(cell, recipe.region) {
            Ok(number) if mutation::is_on(Bug::RejectValid) && number.0 % 40 == 0 => {
                let fault = RowFault { code: Code::InputInvalid, detail: String::new() };
                found.rejects.push(rejected(record, line, fault, cell));
            }
            Ok(number) => candidates.push(Candidate { record, line, number, fields }),
            Err(fault) => found.rejects.push(rejected(record, line, fault, cell)),
        }
    }
    candidates
}

/// The messages of the candidates that are not suppressed; `suppressed` has an answer for each of them.
pub fn messages(recipe: &Recipe, candidates: Vec<Candidate>, suppressed: &[bool], found: &mut Found) {
    debug_assert_eq!(candidates.len(), suppressed.len());
    found.codes.make(recipe, &candidates);
    for (mut candidate, &suppressed) in candidates.into_iter().zip(suppressed) {
        if suppressed {
            found.rejects.push(Reject {
                record: candidate.record,
                line: candidate.line,
                kind: RejectKind::Suppressed,
                code: None,
                detail: String::new(),
                number: kept(cell_of(recipe, &candidate)),
            });
            continue;
        }
        match message(recipe, &mut candidate, found) {
            Ok(message) => found.messages.push(message),
            Err(fault) => {
                found.rejects.push(rejected(candidate.record, candidate.line, fault, cell_of(recipe, &candidate)));
            }
        }
    }
}

fn message(recipe: &Recipe, candidate: &mut Candidate, found: &mut Found) -> Result<Message, RowFault> {
    let body = &mut found.body;
    let at = recipe.template.render(&mut candidate.fields, body)?;
    let link = match at {
        Some(at) => Some(LinkSpot { at, code: code(recipe, &found.codes, candidate.record)? }),
        None => None,
    };
    if body.trim().is_empty() && link.is_none() {
        return Err(RowFault { code: Code::RowTextEmpty, detail: "the text is empty".into() });
    }
    let whole = &mut found.whole;
    whole.clear();
    let link_and_base = link.as_ref().map(|link| (link, recipe.link_base.as_str()));
    compose_into(whole, body, link_and_base, &recipe.signature, recipe.capabilities.add_signature);
    // A byte is at most a character: few texts have to be counted.
    if whole.len() > TEXT_CHARS_MAX && whole.chars().count() > TEXT_CHARS_MAX {
        return Err(RowFault {
            code: Code::RowTextTooLong,
            detail: format!("the text has more than {TEXT_CHARS_MAX} characters"),
        });
    }
    let split = split(whole, recipe.capabilities.long_message);
    if split.parts > recipe.parts_max {
        let detail = format!("the text takes {} segments; the most is {}", split.parts, recipe.parts_max);
        return Err(RowFault { code: Code::RowTextTooLong, detail });
    }
    found.samples.consider(candidate.line, whole, split.parts);
    Ok(Message {
        number: candidate.number,
        record: candidate.record,
        line: candidate.line,
        body: body.clone(),
        link,
        segments: split.parts,
        ucs2: split.encoding == Encoding::Ucs2,
    })
}

fn code(recipe: &Recipe, codes: &ChunkCodes, record: u64) -> Result<String, RowFault> {
    if !recipe.capabilities.links {
        let detail = "the account forbids a link of its own per recipient".into();
        return Err(RowFault { code: Code::RowLinkForbidden, detail });
    }
    codes.of(record).ok_or_else(|| RowFault { code: Code::Internal, detail: "no short code is left for this record".into() })
}

fn rejected(record: u64, line: u64, fault: RowFault, cell: &str) -> Reject {
    Reject { record, line, kind: RejectKind::Rejected, code: Some(fault.code), detail: fault.detail, number: kept(cell) }
}

fn cell_of<'a>(recipe: &Recipe, candidate: &'a Candidate) -> &'a str {
    candidate.fields.get(recipe.number_column).map_or("", String::as_str)
}

fn kept(cell: &str) -> String {
    beginning(cell, CELL_CHARS_KEPT).to_owned()
}
