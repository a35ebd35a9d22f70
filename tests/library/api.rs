//! The public interface as one page, `docs/api.txt`, which shows what a commit changes of it.
//!
//! `SOFTMAX_WRITE_API=1 cargo test -p softmax --test library the_listing` writes the file. It is
//! read from the sources as rustfmt leaves them, where an item starts a line and its indentation
//! tells where it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The entry of a type, a trait or the functions: the head, and lines below it.
#[derive(Default)]
struct Entry {
    head: String,
    implements: Vec<String>,
    /// Whether a line is from another file than the type, and the line.
    lines: Vec<(bool, String)>,
}

fn sources(folder: &str) -> Vec<String> {
    fn visit(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                visit(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push(path);
            }
        }
    }
    let mut all = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    all.sort();
    all.iter().map(|path| read(path)).collect()
}

/// A file without comments and unit tests, its macros of items expanded.
fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source");
    let text = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let [view, view_mut] = if path.ends_with("call/ragged.rs") {
        ["Ragged", "RaggedMut"]
    } else {
        ["Matrix", "MatrixMut"]
    };
    let views = [
        [("$name", view), ("$slice", "&'a [T]"), ("$pointer", "*const T")],
        [("$name", view_mut), ("$slice", "&'a mut [T]"), ("$pointer", "*mut T")],
    ];
    let text = expanded(text, "view", &views);
    let masks = ["f32", "f16", "bf16", "u8"].map(|t| [("$t", t), ("$variant", "")]);
    let text = expanded(text, "mask_data", &masks);
    let offsets = ["usize", "i64", "i32"].map(|t| [("$t", t), ("$variant", "")]);
    let text = expanded(text, "offsets", &offsets);
    let shapes = ["Matrix", "MatrixMut"].map(|view| [("$view", view)]);
    expanded(text, "shape_of", &shapes)
}

/// The text, and for each list of arguments the expanded body of a macro that it defines.
fn expanded<const N: usize>(text: String, name: &str, all: &[[(&str, &str); N]]) -> String {
    let Some(body) = body_of(&text, name) else { return text };
    let bodies = all.iter().map(|arguments| {
        arguments.iter().fold(body.clone(), |body, (from, to)| body.replace(from, to))
    });
    text.clone() + &bodies.collect::<String>()
}

fn body_of(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("macro_rules! {name} {{\n"))?;
    let (_, body) = rest.split_once("=> {\n")?;
    let (body, _) = body.split_once("\n    };\n")?;
    let lines = body.lines().map(|line| line.strip_prefix("        ").unwrap_or(line));
    let lines = lines.map(|line| line.strip_prefix("$(").unwrap_or(line));
    let lines = lines.map(|line| if line == "})*" { "}" } else { line });
    Some(lines.flat_map(|line| [line, "\n"]).collect())
}

/// The names that the crate exports, its own and those of the kernels' crate.
fn exports() -> [Vec<String>; 2] {
    let root = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let mut names = [Vec::new(), Vec::new()];
    for item in root.split("pub use ").skip(1) {
        let (path, _) = item.split_once(';').expect("an end of the item");
        let (module, list) = path.split_once("::").unwrap_or(("", path));
        let list = list.trim_matches(['{', '}']).split(',').map(|name| name.trim().to_string());
        names[usize::from(module == "softmax_kernels")].extend(list.filter(|n| !n.is_empty()));
    }
    names
}

/// Everything that starts with `pub` or `impl` at an indentation, with the attributes before it and
/// the lines within it.
fn items(text: &str, indent: usize) -> Vec<(Vec<&str>, String, String)> {
    let space = " ".repeat(indent);
    let (mut all, mut attributes) = (Vec::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(item) = line.strip_prefix(&space).filter(|item| !item.starts_with(' ')) else {
            continue;
        };
        if item.starts_with("#[") {
            attributes.push(item);
            continue;
        }
        let attributes = std::mem::take(&mut attributes);
        if !["pub ", "impl", "unsafe impl"].iter().any(|start| item.starts_with(start)) {
            continue;
        }
        // The head ends with a line that ends with one of these.
        let mut head = item.to_string();
        let is_end = |head: &str| head.ends_with(['{', ';', '}']);
        while !is_end(&head) {
            let Some(line) = lines.next() else { break };
            head = format!("{head} {}", line.trim());
        }
        let mut body = String::new();
        if head.ends_with('{') {
            let end = format!("{space}}}");
            for line in lines.by_ref().take_while(|line| **line != *end) {
                body = body + line + "\n";
            }
        }
        all.push((attributes, plain(&head), body));
    }
    all
}

/// A head in one line.
fn plain(head: &str) -> String {
    let head = head.trim_end_matches(['{', ';']).trim();
    let head = head.split(" = ").next().unwrap_or_default();
    let pairs = [
        ("( ", "("),
        (", )", ")"),
        (" )", ")"),
        ("< ", "<"),
        (", >", ">"),
        (", }", " }"),
        ("crate::", ""),
        ("mut self", "self"),
        ("sealed::Internal", "(closed)"),
        ("sealed::Attends<T>", "(closed)"),
    ];
    pairs.iter().fold(head.to_string(), |head, (from, to)| head.replace(from, to))
}

/// The name of a type in an expression: `Softmax` of `Softmax<'_>`.
fn name_of(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

fn list(text: &str, exported: &[String], entries: &mut BTreeMap<String, Entry>, macros: &str) {
    let exports = |name: &str| exported.iter().any(|n| n == name);
    for (attributes, head, body) in items(text, 0) {
        if attributes.contains(&"#[doc(hidden)]") {
            continue;
        }
        let words: Vec<&str> = head.split([' ', '(', '<', ':']).collect();
        if let Some(at) = words.iter().position(|w| ["struct", "enum", "trait"].contains(w)) {
            let name = words[at + 1];
            if at == 0 || words[0] != "pub" || !exports(name) {
                continue;
            }
            let entry = entries.entry(name.to_string()).or_default();
            entry.head =
                head.trim_start_matches("pub ").split('{').next().unwrap_or("").trim().into();
            if attributes.contains(&"#[non_exhaustive]") {
                entry.head += " (more may come)";
            }
            let derives = attributes.iter().filter_map(|a| a.strip_prefix("#[derive("));
            let derives = derives.flat_map(|list| list.trim_end_matches(")]").split(", "));
            entry.implements.extend(derives.map(String::from));
            let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
            let mut inner = String::new();
            for line in lines.filter(|line| !line.trim_start().starts_with("#[")) {
                let line = line.trim();
                inner = if inner.is_empty() { line.into() } else { format!("{inner} {line}") };
                let is_whole =
                    inner.matches(['{', '(']).count() == inner.matches(['}', ')']).count();
                if is_whole {
                    let shown = words[at] != "struct" || inner.starts_with("pub ");
                    let line = plain(inner.trim_end_matches(','));
                    entry.lines.extend(shown.then_some((false, line)));
                    inner.clear();
                }
            }
        } else if let Some(rest) = head.strip_prefix("impl") {
            let rest = rest.strip_prefix('<').map_or(rest, after_generics).trim();
            if let Some((of, this)) = rest.split_once(" for ") {
                let this = this.trim_start_matches('&');
                let is_known = exports(name_of(this)) && !of.contains("sealed");
                let is_one = exports(name_of(of)) || ["From", "Default"].contains(&name_of(of));
                if is_known && is_one
                    || ["fmt::Display", "fmt::Debug", "std::fmt::Debug"].contains(&of)
                        && exports(name_of(this))
                {
                    let entry = entries.entry(name_of(this).to_string()).or_default();
                    entry.implements.push(
                        of.trim_start_matches("std::").trim_start_matches("fmt::").to_string(),
                    );
                }
                continue;
            }
            if !exports(name_of(rest)) {
                continue;
            }
            let entry = entries.entry(name_of(rest).to_string()).or_default();
            let mut body = body;
            for name in ["factor_setters", "exec_setter"] {
                let text = body_of(macros, name).expect("a macro of setters");
                let text: String = text.lines().map(|line| format!("    {line}\n")).collect();
                // Its argument is a sentence of the documentation.
                let call = body.split_once(&format!("    {name}!("));
                if let Some((before, rest)) = call
                    && let Some((_, after)) = rest.split_once(");\n")
                {
                    body = format!("{before}{text}{after}");
                }
            }
            let methods = items(&body, 4).into_iter();
            let methods = methods.filter(|(attributes, head, _)| {
                !attributes.contains(&"#[doc(hidden)]") && head.starts_with("pub ")
            });
            let methods = methods.map(|(_, head, _)| head.replacen("pub ", "", 1));
            let name = name_of(rest);
            let is_here = ["struct", "enum"].iter().any(|kind| {
                [" {", "<", "("].iter().any(|end| text.contains(&format!("pub {kind} {name}{end}")))
            });
            entry.lines.extend(methods.map(|method| (!is_here, method)));
        } else if let Some(at) = words.iter().position(|w| *w == "fn" || *w == "const")
            && words[0] == "pub"
            && exports(words[at + 1])
        {
            let entry = entries.entry("fn".into()).or_default();
            entry.lines.push((false, head.replacen("pub ", "", 1)));
        }
    }
}

/// The text after a list of generic parameters whose first bracket is gone.
fn after_generics(text: &str) -> &str {
    let mut depth = 1;
    for (i, c) in text.char_indices() {
        depth += i32::from(c == '<') - i32::from(c == '>');
        if depth == 0 {
            return &text[i + 1..];
        }
    }
    ""
}

fn listing() -> String {
    let [own, of_kernels] = exports();
    let mut entries = BTreeMap::new();
    let texts = sources("src");
    let macros = texts.concat();
    texts.iter().for_each(|text| list(text, &own, &mut entries, &macros));
    sources("kernels").iter().for_each(|text| list(text, &of_kernels, &mut entries, &macros));
    let mut page = String::from(
        "The public interface of the crate softmax, without comments: cargo doc has these.\n\
         Made and compared by tests/library/api.rs.\n",
    );
    let mut show = |head: &str, lines: &[(bool, String)]| {
        page += &format!("\n{head}\n");
        lines.iter().for_each(|(_, line)| page += &format!("    {line}\n"));
    };
    let mut functions = entries.remove("fn").expect("there are functions").lines;
    functions.sort();
    show("functions, and a constant", &functions);
    for entry in entries.values_mut() {
        entry.implements.sort();
        entry.lines.sort_by_key(|(elsewhere, _)| *elsewhere);
        let implements = entry.implements.join(", ");
        let head = if implements.is_empty() {
            entry.head.clone()
        } else {
            format!("{}: {implements}", entry.head)
        };
        show(&head, &entry.lines);
    }
    page
}

#[test]
fn the_listing_is_that_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.txt");
    let found = listing();
    if std::env::var_os("SOFTMAX_WRITE_API").is_some() {
        fs::write(&path, &found).expect("the file can be written");
    }
    let written = fs::read_to_string(&path).expect("docs/api.txt");
    let differing = found.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert!(found == written, "docs/api.txt is not up to date: {differing:?}");
}

/// Everything that is exported is listed: the scan has missed nothing.
#[test]
fn the_listing_has_all_exports() {
    let page = listing();
    for name in exports().concat() {
        let is_crate = ["half", "ndarray"].contains(&&*name);
        let is_there = ["struct ", "enum ", "trait ", "fn ", "const "].iter().any(|kind| {
            page.match_indices(&format!("{kind}{name}")).any(|(i, found)| {
                let next = page[i + found.len()..].chars().next();
                next.is_some_and(|c| !c.is_alphanumeric() && c != '_')
            })
        });
        assert!(is_crate || is_there, "{name} is missing");
    }
}
