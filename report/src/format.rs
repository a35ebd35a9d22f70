//! Numbers and names as people read them.

use std::borrow::Cow;

/// A number that is not negative, with three digits, or four or five before the point.
pub fn number(x: f64) -> String {
    match x {
        0.0 => "0".into(),
        1e5.. => format!("{x:.2e}"),
        100.0.. => format!("{x:.0}"),
        10.0.. => format!("{x:.1}"),
        1.0.. => format!("{x:.2}"),
        1e-4.. => format!("{x:.*}", (2.0 - x.log10().floor()) as usize),
        _ => format!("{x:.2e}"),
    }
}

/// A share, in percent.
pub fn percent(x: f64) -> String {
    if x >= 0.0995 { format!("{:.0}%", x * 100.0) } else { format!("{:.1}%", x * 100.0) }
}

/// Bytes, by powers of 1,024.
pub fn bytes(n: u64) -> String {
    let unit = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (n.max(1).ilog2() / 10).min(4);
    let size = n as f64 / f64::from(power * 10).exp2();
    let digits = usize::from(size.fract() != 0.0);
    format!("{size:.digits$} {}", unit[power as usize])
}

/// A number of things.
pub fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A command as a shell takes it: arguments with special characters are quoted.
pub fn command(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    let quote = |argument: &String| match argument {
        text if !text.is_empty() && text.chars().all(plain) => text.clone(),
        text => format!("'{}'", text.replace('\'', "'\\''")),
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The text, cut to this width; `width` is that of a character.
pub fn clip(text: &str, most: f64, width: impl Fn(char) -> f64) -> Cow<'_, str> {
    let end = |most: f64| {
        let mut sum = 0.0;
        let mut past = text.char_indices().filter(|&(_, c)| {
            sum += width(c);
            sum > most
        });
        past.next().map(|(i, _)| i)
    };
    match end(most) {
        None => text.into(),
        Some(_) => {
            let end = end(most - width('…')).unwrap_or(0);
            format!("{}…", text[..end].trim_end()).into()
        }
    }
}

/// The text, with characters replaced that XML forbids or terminals obey.
pub fn harmless(text: &str) -> String {
    let bad = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.replace(bad, "\u{fffd}")
}
