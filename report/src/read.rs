//! Reports as JSON.

use serde_json::Value;
use serde_json::error::Category;

use crate::error::Error;
use crate::schema::{Case, Limits, Report, SCHEMA, Timing, VERSION};

/// The range of plausible measurements; products and quotients of such numbers are finite.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

/// Reads a report. `name` is the name of the bytes in errors.
///
/// # Errors
///
/// [`Error::Syntax`] if the bytes are not complete JSON, [`Error::Field`] if it is not a report,
/// has another version, or values that make no sense.
pub fn read(bytes: &[u8], name: &str) -> Result<Report, Error> {
    let fault = |(field, cause)| Error::Field { name: name.into(), field, cause };
    match serde_json::from_slice(bytes) {
        Ok(value) => head(&value).map_err(fault)?,
        Err(e) => return Err(syntax(bytes, name, &e)),
    }
    let report = typed(bytes).map_err(|e| {
        let (path, cause) = (e.path().to_string(), text(e.inner()));
        let path = if path == "." { String::new() } else { path };
        // The missing field is part of the path, too.
        let missing = cause.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        fault(match missing {
            Some(field) if path.is_empty() => (field.into(), "missing field".into()),
            Some(field) => (format!("{path}.{field}"), "missing field".into()),
            None => (path, cause),
        })
    })?;
    sense(&report).map_err(fault)?;
    Ok(report)
}

/// The report as readable JSON, with a line feed at the end.
pub fn write(report: &Report) -> String {
    let json = serde_json::to_string_pretty(report);
    json.expect("numbers, strings and lists of them are JSON") + "\n"
}

fn typed(bytes: &[u8]) -> Result<Report, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(bytes))
}

/// The message of serde, without line and column.
fn text(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.rfind(" at line ").map_or(&*text, |end| &text[..end]).into()
}

/// The error of bytes that are not JSON, with the field if it is known.
fn syntax(bytes: &[u8], name: &str, e: &serde_json::Error) -> Error {
    let field = match typed(bytes) {
        Err(e) if e.inner().classify() != Category::Data => e.path().to_string(),
        _ => ".".into(),
    };
    let field = if field == "." { String::new() } else { field };
    let cause = match e.classify() {
        Category::Eof => "it ends too early,".into(),
        _ => format!("it is not JSON: {}", text(e)),
    };
    Error::Syntax { name: name.into(), field, line: e.line(), column: e.column(), cause }
}

type Fault = (String, String);

fn fault(field: impl Into<String>, cause: impl Into<String>) -> Result<(), Fault> {
    Err((field.into(), cause.into()))
}

/// Checks that it is a report of this version.
fn head(value: &Value) -> Result<(), Fault> {
    let Some(object) = value.as_object() else { return fault("", "a report is an object") };
    match object.get("schema") {
        None => return fault("schema", "missing field"),
        Some(Value::String(schema)) if schema == SCHEMA => {}
        Some(Value::String(schema)) => {
            let schema: String = schema.chars().take(40).collect();
            return fault("schema", format!("is {schema:?}, not {SCHEMA:?}"));
        }
        Some(_) => return fault("schema", format!("is not {SCHEMA:?}")),
    }
    match object.get("version") {
        None => fault("version", "missing field"),
        Some(version) if version.as_u64() == Some(VERSION.into()) => Ok(()),
        Some(Value::Number(version)) => {
            fault("version", format!("is {version}, but only {VERSION} is known"))
        }
        Some(_) => fault("version", "is not a number"),
    }
}

/// Checks that the values make sense.
fn sense(report: &Report) -> Result<(), Fault> {
    each("clock", &report.clock)?;
    let Limits { memory, arithmetic } = &report.limits;
    for (i, limit) in memory.iter().enumerate() {
        let field = |name| format!("limits.memory[{i}].{name}");
        count(field("bytes"), limit.bytes)?;
        count(field("threads"), limit.threads as u64)?;
        timing(&field("timing"), &limit.timing)?;
        plausible(field("gb_per_second"), limit.gb_per_second)?;
    }
    for (i, limit) in arithmetic.iter().enumerate() {
        let field = |name| format!("limits.arithmetic[{i}].{name}");
        count(field("threads"), limit.threads as u64)?;
        timing(&field("timing"), &limit.timing)?;
        plausible(field("gops_per_second"), limit.gops_per_second)?;
    }
    report.cases.iter().enumerate().try_for_each(|(i, c)| case(&format!("cases[{i}]"), c))
}

fn case(path: &str, case: &Case) -> Result<(), Fault> {
    let field = |name| format!("{path}.{name}");
    count(field("rows"), case.rows as u64)?;
    count(field("cols"), case.cols as u64)?;
    count(field("threads"), case.threads as u64)?;
    count(field("elements"), case.elements)?;
    count(field("traffic"), case.traffic)?;
    not_negative(field("operations"), case.operations)?;
    for (name, ulp) in [
        ("check.max_ulp", case.check.max_ulp),
        ("check.mean_ulp", case.check.mean_ulp),
        ("check.limit_ulp", case.check.limit_ulp),
    ] {
        ulp.map_or(Ok(()), |ulp| not_negative(field(name), ulp))?;
    }
    let Some(result) = &case.result else { return Ok(()) };
    timing(&field("result.timing"), &result.timing)?;
    plausible(field("result.elements_per_second"), result.elements_per_second)?;
    plausible(field("result.gb_per_second"), result.gb_per_second)?;
    for (name, x) in [
        ("result.limit_elements_per_second", result.limit_elements_per_second),
        ("result.fraction_of_limit", result.fraction_of_limit),
        ("result.cycles_per_element", result.cycles_per_element),
    ] {
        x.map_or(Ok(()), |x| plausible(field(name), x))?;
    }
    match result.bound_by.as_deref() {
        None | Some("memory" | "arithmetic") => Ok(()),
        Some(_) => fault(field("result.bound_by"), "is neither \"memory\" nor \"arithmetic\""),
    }
}

fn timing(path: &str, timing: &Timing) -> Result<(), Fault> {
    if timing.seconds.is_empty() {
        return fault(format!("{path}.seconds"), "is empty");
    }
    each(&format!("{path}.seconds"), &timing.seconds)?;
    count(format!("{path}.calls"), timing.calls)?;
    plausible(format!("{path}.median"), timing.median)?;
    not_negative(format!("{path}.spread"), timing.spread)?;
    let rounds = timing.seconds.len();
    match timing.outliers.iter().position(|&round| round >= rounds) {
        None => Ok(()),
        Some(i) => fault(
            format!("{path}.outliers[{i}]"),
            format!("is {}, but there are {rounds} rounds", timing.outliers[i]),
        ),
    }
}

fn each(path: &str, list: &[f64]) -> Result<(), Fault> {
    list.iter().enumerate().try_for_each(|(i, &x)| plausible(format!("{path}[{i}]"), x))
}

fn plausible(field: String, x: f64) -> Result<(), Fault> {
    let (low, high) = (PLAUSIBLE.start(), PLAUSIBLE.end());
    let good = PLAUSIBLE.contains(&x);
    if good { Ok(()) } else { fault(field, format!("is {x}, not between {low:e} and {high:e}")) }
}

fn not_negative(field: String, x: f64) -> Result<(), Fault> {
    let good = x == 0.0 || PLAUSIBLE.contains(&x);
    if good { Ok(()) } else { fault(field, format!("is {x}, which makes no sense")) }
}

fn count(field: String, n: u64) -> Result<(), Fault> {
    if n > 0 { Ok(()) } else { fault(field, "is 0") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// The checked-in schema is that of the types.
    #[test]
    fn schema_is_up_to_date() {
        let schema = schemars::schema_for!(crate::Report);
        let schema = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reports/schema.json");
        if std::env::var_os("SOFTMAX_WRITE_SCHEMA").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, &schema).expect("a file that can be written");
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            there == schema,
            "docs/reports/schema.json is out of date: run SOFTMAX_WRITE_SCHEMA=1 cargo test -p softmax-report schema"
        );
    }
}
