use serde_json::{Value, json};
use softmax_report::{Error, read, write};

use crate::sample::{BIG, SMALL, bare_report, nasty_report, sample_report};

fn refused(value: &Value) -> String {
    read(value.to_string().as_bytes(), "a.json").expect_err("it makes no sense").to_string()
}

fn sample() -> Value {
    serde_json::to_value(sample_report(&SMALL)).expect("JSON")
}

#[test]
fn what_is_written_can_be_read() {
    for report in [sample_report(&BIG), bare_report(), nasty_report()] {
        let text = write(&report);
        assert!(text.ends_with("}\n"));
        let again = read(text.as_bytes(), "a.json").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(write(&again), text);
    }
    let mut newer = sample();
    newer["machine"]["a field of later times"] = json!([1, 2]);
    assert!(read(newer.to_string().as_bytes(), "a.json").is_ok());
}

#[test]
fn foreign_files_are_refused() {
    let error = |bytes: &[u8]| read(bytes, "a.json").expect_err("it is no report").to_string();
    assert_eq!(error(b"[1, 2]"), "a.json: a report is an object");
    assert_eq!(error(b"{}"), "a.json: schema: missing field");
    assert_eq!(error(br#"{"schema": "foo"}"#), r#"a.json: schema: is "foo", not "softmax-report""#);
    assert_eq!(error(br#"{"schema": 3}"#), r#"a.json: schema: is not "softmax-report""#);
    assert_eq!(error(br#"{"schema": "softmax-report"}"#), "a.json: version: missing field");
    for version in ["0", "2", "-1", "1.5"] {
        let head = format!(r#"{{"schema": "softmax-report", "version": {version}, "date": 3}}"#);
        let expected = format!("a.json: version: is {version}, but only 1 is known");
        assert_eq!(error(head.as_bytes()), expected);
    }
    assert_eq!(
        error(b"case,speed\n1,2\n"),
        "a.json: it is not JSON: expected value at line 1, column 1"
    );
    assert!(error(b"").contains("ends too early"));
    assert!(error(b"\xff\xfe{\0").contains("not JSON"));
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let text = write(&sample_report(&SMALL));
    let whole = text.trim_end().len();
    for end in (0..whole).step_by(997).chain(whole - 300..whole) {
        let e = read(&text.as_bytes()[..end], "a.json").expect_err("it is not complete");
        assert!(matches!(e, Error::Syntax { .. }), "{end}: {e}");
    }
    let end = text.find("\"median\"").expect("a median") + 12;
    let e = read(&text.as_bytes()[..end], "a.json").expect_err("it is not complete").to_string();
    assert!(e.starts_with("a.json: limits.memory[0].timing.median: it ends too early"), "{e}");
    assert!(e.contains("at line "), "{e}");
}

#[test]
fn missing_fields_are_named() {
    let mut value = sample();
    let timing = value["cases"][3]["result"]["timing"].as_object_mut().expect("an object");
    timing.remove("median");
    assert_eq!(refused(&value), "a.json: cases[3].result.timing.median: missing field");
    let mut value = sample();
    value["machine"]["logical_cores"] = json!("two");
    let e = refused(&value);
    assert!(e.starts_with("a.json: machine.logical_cores: invalid type: string \"two\""), "{e}");
}

#[test]
fn values_that_make_no_sense_are_named() {
    let at = |pointer: &str, new: Value| {
        let mut value = sample();
        *value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer}")) = new;
        refused(&value)
    };
    for (field, new) in [
        ("cases[1].result.timing.median", json!(-1.0)),
        ("cases[1].result.timing.median", json!(0)),
        ("cases[1].result.timing.median", json!(null)),
        ("cases[1].result.timing.median", json!(1e300)),
        ("cases[1].result.timing.seconds", json!([])),
        ("cases[1].result.timing.seconds[2]", json!(-0.5)),
        ("cases[1].result.timing.calls", json!(0)),
        ("cases[1].result.timing.spread", json!(-0.1)),
        ("cases[1].result.timing.outliers[0]", json!(99)),
        ("cases[1].result.elements_per_second", json!(0)),
        ("cases[1].result.gb_per_second", json!(-3)),
        ("cases[1].result.fraction_of_limit", json!(-3)),
        ("cases[1].result.bound_by", json!("luck")),
        ("cases[1].rows", json!(0)),
        ("cases[1].threads", json!(0)),
        ("cases[1].elements", json!(0)),
        ("cases[1].traffic", json!(0)),
        ("cases[1].operations", json!(-1)),
        ("cases[1].check.max_ulp", json!(-1)),
        ("limits.memory[2].bytes", json!(0)),
        ("limits.memory[2].gb_per_second", json!(0)),
        ("limits.memory[2].timing.median", json!(0)),
        ("limits.arithmetic[1].gops_per_second", json!(-1)),
        ("limits.arithmetic[1].timing.seconds", json!([])),
        ("clock[1]", json!(0)),
    ] {
        let pointer = "/".to_owned() + &field.replace(['.', '['], "/").replace(']', "");
        let e = at(&pointer, new.clone());
        assert!(e.starts_with(&format!("a.json: {field}: ")), "{field} {new}: {e}");
    }
}
