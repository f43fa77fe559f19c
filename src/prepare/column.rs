//! Which column of a list holds what.

use crate::model::code::{Code, Fault};
use crate::model::text::beginning;

/// Names under which lists hold telephone numbers, in lower case and without blanks, dashes and underscores.
const NUMBER_NAMES: &[&str] = &[
    "phone",
    "mobile",
    "msisdn",
    "number",
    "tel",
    "to",
    "recipient",
    "phonenumber",
    "mobilenumber",
    "mobilephone",
    "cell",
    "cellphone",
    "telephone",
    "phoneno",
    "mobileno",
    "手机号",
    "手机",
    "手机号码",
    "电话",
    "电话号码",
    "号码",
    "联系电话",
    "移动电话",
    "手機",
    "手機號碼",
    "電話",
    "電話號碼",
    "號碼",
];

/// The column that holds the telephone numbers: the one named, or the only one with a name that says so.
///
/// # Errors
/// [`Code::SourceColumnMissing`] when there is none, or when two could be meant.
pub fn number_column(named: Option<&str>, columns: &[String]) -> Result<usize, Fault> {
    if let Some(named) = named {
        return match places(columns, |column| column == named.trim()).as_slice() {
            [place] => Ok(*place),
            [] => Err(missing(format!("the list has no column {}; it has {}", shown(named), list(columns)))),
            _ => Err(missing(format!("the list has more than one column {named:?}"))),
        };
    }
    let candidates = places(columns, |column| {
        let plain: String = column.chars().filter(|c| !matches!(c, ' ' | '-' | '_')).flat_map(char::to_lowercase).collect();
        NUMBER_NAMES.contains(&plain.as_str())
    });
    match candidates.as_slice() {
        [place] => Ok(*place),
        [] => Err(missing(format!("no column is named like a telephone number; the columns are {}", list(columns)))),
        several => {
            let named: Vec<String> = several.iter().map(|&place| columns[place].clone()).collect();
            Err(missing(format!("the columns {} could all hold the numbers: name one", list(&named))))
        }
    }
}

/// The column of a template's variable.
///
/// # Errors
/// [`Code::TemplateUnknownColumn`] when there is none, or two have the name.
pub fn named_column(name: &str, columns: &[String]) -> Result<usize, Fault> {
    match places(columns, |column| column == name).as_slice() {
        [place] => Ok(*place),
        [] => {
            let text = format!("the template uses {}; the columns are {}", shown(name), list(columns));
            Err(Fault::new(Code::TemplateUnknownColumn, text))
        }
        _ => Err(Fault::new(Code::TemplateUnknownColumn, format!("the list has more than one column {name:?}"))),
    }
}

fn places(columns: &[String], wanted: impl Fn(&str) -> bool) -> Vec<usize> {
    let found = columns.iter().enumerate().filter(|(_, column)| wanted(column.trim()));
    found.map(|(place, _)| place).collect()
}

fn missing(context: String) -> Fault {
    Fault::new(Code::SourceColumnMissing, context)
}

/// A name for a person, not all of a very long one.
fn shown(name: &str) -> String {
    format!("{:?}", beginning(name, 60))
}

/// Column names for a person, at most 30 of them.
fn list(columns: &[String]) -> String {
    let shown: Vec<String> = columns.iter().take(30).map(|column| shown(column.trim())).collect();
    let rest = columns.len().saturating_sub(30);
    if rest == 0 { shown.join(", ") } else { format!("{} and {rest} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_number_column_is_named_or_known_by_its_name() {
        type Case<'a> = (Option<&'a str>, &'a [&'a str], Result<usize, &'a str>);
        let cases: &[Case<'_>] = &[
            (None, &["name", "phone"], Ok(1)),
            (None, &["Name", " Phone_Number "], Ok(1)),
            (None, &["MSISDN", "name"], Ok(0)),
            (None, &["姓名", "手机号"], Ok(1)),
            (None, &["to"], Ok(0)),
            (None, &["name", "city"], Err("\"name\", \"city\"")),
            (None, &["phone", "mobile", "city"], Err("\"phone\", \"mobile\" could")),
            (None, &["phone", "phone"], Err("could all")),
            (Some("mobile"), &["phone", "mobile"], Ok(1)),
            (Some("Mobile"), &["phone", "mobile"], Err("no column \"Mobile\"")),
            (Some("phone"), &["phone", "phone"], Err("more than one")),
            (Some("anything"), &["anything"], Ok(0)),
        ];
        for (named, names, expected) in cases {
            match (number_column(*named, &columns(names)), expected) {
                (Ok(place), Ok(expected)) => assert_eq!(place, *expected, "{names:?}"),
                (Err(fault), Err(words)) => {
                    assert_eq!(fault.code, Code::SourceColumnMissing);
                    assert!(fault.context.contains(words), "{names:?}: {fault}");
                }
                (found, _) => panic!("{names:?}: {found:?}"),
            }
        }
    }
}
