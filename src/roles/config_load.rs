//! Reading the configuration: defaults, then a TOML file, then the environment, then flags, each stronger than the one
//! before. All problems are found in one go, and none of them ever shows a secret.

use crate::model::text::beginning;
use std::path::{Path, PathBuf};

use figment::error::{Actual, Kind};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::config::Config;
use super::reach::{FILE_KEYS, first_line};

/// Keys of the environment begin with this; `__` stands for the dot between tables.
pub const ENVIRONMENT: &str = "SMSFLEET_";
/// The file that is read when none is named: in the current folder, else in the data folder.
pub const FILE: &str = "smsfleet.toml";
/// Variables that belong to the command line, or to a drill and its workers, and name no key.
const NOT_KEYS: [&str; 5] = ["CONFIG", "SERVER", "API_KEY", "CA_FILE", "DRILL"];
/// Keys that hold secrets: their values are never shown, and `KEY_file` names a file that holds one.
const SECRETS: [&str; 7] = ["password", "token", "receipt_token", "secret", "sas", "key_password", "sentinel_password"];
/// No key lies deeper; what is written behind that is taken for the last part of its name.
const KEY_DEPTH_MAX: usize = 16;
/// Arrays and tables in one value of the environment or a flag. The parser of values goes down into each, and has no bottom.
const OPENINGS_MAX: usize = 64;
/// Characters of a wrong value or word that are shown.
const SHOWN_MAX: usize = 100;
/// More problems than this are not looked for.
const PROBLEMS_MAX: usize = 100;

/// Something that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was found: a file, a variable, the command line.
    pub place: String,
    /// The key, as `accounts.main.smpp.window`; empty for a file that cannot be read at all.
    pub key: String,
    /// What is wrong, and what would be right.
    pub text: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.text)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.text)
        }
    }
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that was named; else [`FILE`] is looked for.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags, as dotted keys with their values.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// The process's own environment, with a file and flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Sources {
        // A variable that is no UTF-8 can be no value of ours.
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Sources { file, environment: environment.collect(), flags }
    }
}

/// A configuration that was read, and the file it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file, when there was one.
    pub file: Option<PathBuf>,
}

/// One source, weakest first.
struct Layer {
    name: String,
    dict: Dict,
    /// Texts as they were given, for values that look like numbers and are meant as texts.
    texts: bool,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

/// Reads the configuration, or finds all that is wrong with it. Relations between values are [`Config::check`]'s.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let mut problems = vec![];
    let strong = [texts_layer("environment", &environment(sources)), texts_layer("command line", &sources.flags)];
    let file = find_file(sources, &strong);
    let mut layers = vec![];
    if let Some(path) = &file {
        match file_layer(path) {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    layers.extend(strong);
    for layer in &mut layers {
        let folder = file.as_deref().filter(|_| !layer.texts).and_then(Path::parent).map(Path::to_owned);
        read_secret_files(&mut layer.dict, &folder.unwrap_or_default(), &layer.name, "", &mut problems);
    }
    while problems.len() < PROBLEMS_MAX {
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        match figment.extract::<Config>() {
            Ok(config) if problems.is_empty() => return Ok(Loaded { config, file }),
            Ok(_) => break,
            Err(error) => {
                if !repair(&error, &mut layers, &mut problems) {
                    break;
                }
            }
        }
    }
    Err(problems)
}

/// Finds the layer that a problem is in, notes the problem and takes the value out, so that the next one can be found.
/// Answers whether there is something left to try.
fn repair(error: &figment::Error, layers: &mut [Layer], problems: &mut Vec<Problem>) -> bool {
    let mut path = error.path.clone();
    if let Kind::UnknownField(field, _) = &error.kind
        && path.last() != Some(field)
    {
        path.push(field.clone());
    }
    // A name may be empty; a problem without a key is one of the whole file.
    let key = Some(path.join(".")).filter(|key| !key.is_empty() || path.is_empty()).unwrap_or_else(|| "\"\"".into());
    let strongest = layers.iter_mut().rev().find_map(|layer| find(&mut layer.dict, &path).is_some().then_some(layer));
    let Some(layer) = strongest else {
        problems.push(Problem { place: "configuration".into(), key, text: describe(error, &path) });
        return false;
    };
    if layer.texts
        && let (Kind::InvalidType(actual, _), Some(value)) = (&error.kind, find(&mut layer.dict, &path))
        && !matches!(actual, Actual::Str(_))
        && let Some(text) = as_text(value)
    {
        *value = Value::from(text);
        return true;
    }
    problems.push(Problem { place: layer.name.clone(), key, text: describe(error, &path) });
    remove(&mut layer.dict, &path);
    true
}

fn describe(error: &figment::Error, path: &[String]) -> String {
    let secret = path.last().is_some_and(|key| SECRETS.contains(&key.as_str()));
    match &error.kind {
        Kind::UnknownField(field, known) => match nearest(field, known) {
            Some(near) => format!("is no key; did you mean `{near}`?"),
            None => format!("is no key; known here are {}", known.join(", ")),
        },
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if secret => format!("must be {expected}"),
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("is {}, and must be {expected}", shown(&actual.to_string()))
        }
        Kind::UnknownVariant(word, known) => match nearest(word, known) {
            Some(near) => format!("is `{word}`; did you mean `{near}`?"),
            None => format!("is `{}`, and must be one of {}", shown(word), known.join(", ")),
        },
        _ if secret => "cannot be read".into(),
        kind => kind.to_string(),
    }
}

/// A value for people, not all of a long one.
fn shown(value: &str) -> String {
    let shown = beginning(value, SHOWN_MAX);
    if shown == value { shown.to_owned() } else { format!("{shown}…") }
}

/// The known word that is nearest to what was written, when one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Nobody means one of ours by a word that is longer than any of them can be.
    if word.len() > SHOWN_MAX {
        return None;
    }
    let near = known.iter().map(|candidate| (distance(word, candidate), *candidate)).min()?;
    let length = word.len().max(near.1.len());
    (near.0 <= if length < 4 { 1 } else { (length / 3).max(2) }).then_some(near.1)
}

/// Edit distance: insertions, deletions, replacements.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn environment(sources: &Sources) -> Vec<(String, String)> {
    let keys = sources.environment.iter().filter_map(|(name, value)| Some((name.strip_prefix(ENVIRONMENT)?, value)));
    let keys = keys.filter(|(name, value)| !NOT_KEYS.contains(name) && !value.is_empty());
    keys.map(|(name, value)| (name.to_ascii_lowercase().replace("__", "."), value.clone())).collect()
}

fn texts_layer(name: &str, pairs: &[(String, String)]) -> Layer {
    let mut dict = Dict::new();
    for (key, text) in pairs {
        // Values are read as TOML would read them; what is none is a text.
        let is_text = is_secret(key) || text.matches(['[', '{']).count() > OPENINGS_MAX;
        let value = if is_text { Value::from(text.as_str()) } else { text.parse().unwrap_or_else(|never| match never {}) };
        insert(&mut dict, key, KEY_DEPTH_MAX, keep_text(value, text));
    }
    Layer { name: name.into(), dict, texts: true }
}

/// A number that would not be written the same again ("007", "1.0") is a text.
fn keep_text(value: Value, text: &str) -> Value {
    match as_text(&value) {
        Some(again) if again != text => Value::from(text),
        _ => value,
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, character) => Some(character.to_string()),
        Value::Bool(_, flag) => Some(flag.to_string()),
        Value::Num(_, number) => number
            .to_u128()
            .map(|n| n.to_string())
            .or_else(|| number.to_i128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string())),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => None,
    }
}

fn is_secret(key: &str) -> bool {
    key.rsplit('.').next().is_some_and(|last| SECRETS.contains(&last))
}

fn find_file(sources: &Sources, strong: &[Layer]) -> Option<PathBuf> {
    if let Some(file) = &sources.file {
        return Some(file.clone());
    }
    let named = strong.iter().rev().find_map(|layer| layer.dict.get("data_dir")?.as_str().map(PathBuf::from));
    let folder = named.unwrap_or_else(|| Config::default().data_dir);
    [PathBuf::from(FILE), folder.join(FILE)].into_iter().find(|path| path.is_file())
}

fn file_layer(path: &Path) -> Result<Layer, Problem> {
    let place = path.display().to_string();
    let problem = |text: String| Problem { place: place.clone(), key: String::new(), text };
    let text = std::fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    let dict = toml::from_str(&text).map_err(|error| problem(format!("is no TOML: {}", told(&text, &error))))?;
    Ok(Layer { name: place.clone(), dict, texts: false })
}

/// What is wrong with a TOML text and where. The parser's own words show the whole line, which may hold a secret.
fn told(text: &str, error: &toml::de::Error) -> String {
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return error.message().to_owned() };
    let (line, last) = (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default());
    format!("line {line}, column {}: {}", last.chars().count() + 1, error.message())
}

/// Replaces `password_file = "…"` by `password` with the file's first line, and where that came from: some secrets are looked up
/// again when they are needed.
fn read_secret_files(dict: &mut Dict, folder: &Path, place: &str, prefix: &str, problems: &mut Vec<Problem>) {
    for secret in SECRETS {
        let Some(value) = dict.remove(&format!("{secret}_file")) else { continue };
        let key = format!("{prefix}{secret}_file");
        let read = match as_text(&value) {
            Some(path) => {
                let path = folder.join(path);
                let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
                let line = text.and_then(|text| first_line(&text).map(str::to_owned));
                line.map(|line| (path, line)).map_err(|error| format!("cannot be read: {error}"))
            }
            None => Err("must be a path".into()),
        };
        match read {
            Ok((path, line)) => {
                let parts = [path.to_string_lossy().into_owned(), key, line];
                let held: Dict = FILE_KEYS.map(str::to_owned).into_iter().zip(parts.map(Value::from)).collect();
                dict.insert(secret.to_owned(), Value::from(held));
            }
            Err(text) => problems.push(Problem { place: place.to_owned(), key, text }),
        }
    }
    for (name, value) in dict.iter_mut() {
        if let Value::Dict(_, inner) = value {
            read_secret_files(inner, folder, place, &format!("{prefix}{name}."), problems);
        }
    }
}

fn insert(dict: &mut Dict, key: &str, depth_max: usize, value: Value) {
    match key.split_once('.').filter(|_| depth_max > 1) {
        None => {
            dict.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = dict.entry(head.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(inner, Value::Dict(..)) {
                *inner = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, depth_max - 1, value);
            }
        }
    }
}

fn find<'a>(dict: &'a mut Dict, path: &[String]) -> Option<&'a mut Value> {
    let (head, rest) = path.split_first()?;
    let value = dict.get_mut(head)?;
    match (rest.is_empty(), value) {
        (true, value) => Some(value),
        (false, Value::Dict(_, inner)) => find(inner, rest),
        (false, _) => None,
    }
}

fn remove(dict: &mut Dict, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            dict.remove(last);
        }
        [head, rest @ ..] => {
            if let Some(Value::Dict(_, inner)) = dict.get_mut(head) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
