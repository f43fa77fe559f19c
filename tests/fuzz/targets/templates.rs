//! Templates as tenants write them, and records as lists have them: compiling and rendering stay within their means.

use smsfleet::model::batch::SmsBatch;
use smsfleet::model::code::Code;
use smsfleet::model::limits::TEMPLATE_BYTES_MAX;
use smsfleet::prepare::template::Template;

use super::input::Input;
use super::is_reason;

/// What rendering may come to: the engine's fuel buys 64 bytes each, and no cell is longer than this input.
const FUEL: usize = 20_000;

/// First line: the long link. Second line: the cells of a record, with `|` between them. The rest is the template.
pub fn template(input: &[u8]) -> bool {
    let mut input = Input(input);
    let (url, cells) = (input.line(), input.line());
    let content = input.text();
    let columns = ["phone", "name", "城市", "amount"].map(str::to_owned);
    let mut fields: Vec<String> = cells.split('|').map(str::to_owned).collect();
    fields.resize(columns.len(), String::new());
    let url = Some(url).filter(|url| !url.is_empty());
    let batch = SmsBatch { url, content_signature: "店".into(), ..SmsBatch::new("list", &content, "smpp") };
    let template = match Template::compile(&batch, &columns) {
        Ok(template) => template,
        Err(fault) => {
            assert!([Code::TemplateInvalid, Code::TemplateUnknownColumn].contains(&fault.code), "{fault:?}");
            assert!(!fault.context.is_empty());
            return false;
        }
    };
    assert!(template.places().all(|place| place < columns.len()));
    let (before, mut text) = (fields.clone(), String::from("left over"));
    let rendered = template.render(&mut fields, &mut text);
    assert_eq!(fields, before, "the fields come back");
    match rendered {
        Ok(link) => {
            let most = TEMPLATE_BYTES_MAX + 64 * FUEL + content.len() * cells.len();
            assert!(text.len() <= most, "{} bytes", text.len());
            assert!(link.is_none_or(|at| text.is_char_boundary(at as usize)), "a link goes between characters");
            assert!(link.is_none() || template.has_link());
            true
        }
        Err(fault) => {
            assert!([Code::RowValueMissing, Code::RowRenderFailed, Code::RowTextTooLong].contains(&fault.code), "{fault:?}");
            assert!(is_reason(&fault.detail), "{fault:?}");
            let told = before.iter().find(|cell| cell.len() > 12 && !content.contains(*cell) && fault.detail.contains(*cell));
            assert_eq!(told, None, "a reason holds no value");
            false
        }
    }
}
