//! The page in a browser, as seen on a phone and on a large screen. Needs Chromium: `cargo test
//! --manifest-path report/browser/Cargo.toml`.

#[allow(dead_code)]
#[path = "../../tests/reports/sample.rs"]
mod sample;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use headless_chrome::protocol::cdp::types::Event;
use headless_chrome::protocol::cdp::{Emulation, Network, Page};
use headless_chrome::{Browser, LaunchOptions, Tab};
use sample::{ARM, BIG, SMALL, bare_report, nasty_report, sample_report};
use softmax_report::{Report, charts, html};

/// A script that lists what is wrong with the page.
const CHECK: &str = include_str!("browser.js");

fn browser() -> Browser {
    let path = std::env::var_os("CHROMIUM").map_or_else(|| "chromium".into(), PathBuf::from);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(&path));
    let found = found.into_iter().find(|path| path.is_file());
    let options = LaunchOptions::default_builder()
        .path(Some(found.expect("Chromium, on PATH or where CHROMIUM says")))
        .sandbox(false)
        .args(vec![OsStr::new("--hide-scrollbars")])
        .build()
        .expect("options");
    Browser::new(options).expect("a browser that starts")
}

/// A tab and its errors: everything that was logged, and everything that was loaded besides the
/// page.
fn tab(browser: &Browser) -> (Arc<Tab>, Arc<Mutex<Vec<String>>>) {
    let tab = browser.new_tab().expect("a tab");
    let faults = Arc::new(Mutex::new(vec![]));
    let seen = faults.clone();
    let listener = move |event: &Event| {
        let fault = match event {
            Event::LogEntryAdded(e) => format!("log: {}", e.params.entry.text),
            Event::RuntimeConsoleAPICalled(e) => format!("console: {:?}", e.params.args),
            Event::RuntimeExceptionThrown(e) => format!("exception: {:?}", e.params),
            Event::NetworkRequestWillBeSent(e) => {
                let url = &e.params.request.url;
                if (url.starts_with("file:") && url.ends_with("/page.html")) || url == "data:," {
                    return;
                }
                format!("request: {url}")
            }
            _ => return,
        };
        seen.lock().expect("a list").push(fault);
    };
    tab.add_event_listener(Arc::new(listener)).expect("a listener");
    tab.enable_log().expect("a log");
    tab.enable_runtime().expect("a console");
    let network = Network::Enable {
        max_total_buffer_size: None,
        max_resource_buffer_size: None,
        max_post_data_size: None,
        report_direct_socket_traffic: None,
        enable_durable_messages: None,
    };
    tab.call_method(network).expect("requests");
    (tab, faults)
}

fn resize(tab: &Tab, (width, height): (u32, u32)) {
    tab.call_method(Emulation::SetDeviceMetricsOverride {
        width,
        height,
        device_scale_factor: 1.0,
        mobile: width < 500,
        scale: None,
        screen_width: None,
        screen_height: None,
        position_x: None,
        position_y: None,
        dont_set_visible_size: None,
        screen_orientation: None,
        viewport: None,
        display_feature: None,
        device_posture: None,
    })
    .expect("a size");
}

fn show(tab: &Tab, file: &Path, size: (u32, u32), scheme: &str) {
    resize(tab, size);
    let scheme =
        Emulation::MediaFeature { name: "prefers-color-scheme".into(), value: scheme.into() };
    let media = Emulation::SetEmulatedMedia { media: None, features: Some(vec![scheme]) };
    tab.call_method(media).expect("colours");
    let url = format!("file://{}", file.display());
    tab.navigate_to(&url).and_then(|tab| tab.wait_until_navigated()).expect("a page");
}

/// The result of a script as text.
fn evaluate(tab: &Tab, script: &str) -> String {
    let value = tab.evaluate(script, false).expect("a script that runs").value;
    value.and_then(|value| value.as_str().map(str::to_owned)).expect("text")
}

/// Saves screenshots of the upper part of the page, if they are wanted.
fn screenshots(tab: &Tab, name: &str, width: u32) {
    let Some(folder) = std::env::var_os("SOFTMAX_SCREENSHOTS") else { return };
    let piece = 1500;
    resize(tab, (width, piece));
    let height = evaluate(tab, "String(document.documentElement.scrollHeight)");
    let height: u32 = height.parse().expect("a number");
    for i in 0..height.div_ceil(piece).min(6) {
        evaluate(tab, &format!("scrollTo(0, {}); ''", i * piece));
        let format = Page::CaptureScreenshotFormatOption::Png;
        let picture = tab.capture_screenshot(format, None, None, true).expect("a picture");
        std::fs::write(Path::new(&folder).join(format!("{name}-{i}.png")), picture)
            .expect("a file");
    }
}

/// The pages, by names. One has the reports that the environment variable `SOFTMAX_REPORTS` lists,
/// as `PATH` lists folders.
fn pages() -> Vec<(&'static str, Vec<Report>)> {
    let two_machines = vec![sample_report(&BIG), sample_report(&ARM)];
    let nasty = vec![nasty_report(), sample_report(&SMALL), bare_report()];
    let mut pages =
        vec![("one", vec![sample_report(&BIG)]), ("two", two_machines), ("nasty", nasty)];
    if let Some(given) = std::env::var_os("SOFTMAX_REPORTS") {
        let read = |path: PathBuf| {
            let bytes = std::fs::read(&path).expect("a file of SOFTMAX_REPORTS");
            softmax_report::read(&bytes, &path.to_string_lossy()).expect("a report")
        };
        pages.push(("given", std::env::split_paths(&given).map(read).collect()));
    }
    pages
}

#[test]
fn pages_can_be_read_everywhere() {
    let browser = browser();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("page.html");
    let (tab, faults) = tab(&browser);
    let mut wrong = vec![];
    for (name, reports) in pages() {
        std::fs::write(&file, html(&reports)).expect("a file");
        for size in [(360, 800), (1400, 900)] {
            for scheme in ["light", "dark"] {
                show(&tab, &file, size, scheme);
                let what = format!("{name}-{}-{scheme}", size.0);
                let list =
                    evaluate(&tab, &CHECK.replace("CHARTS", &charts(&reports).len().to_string()));
                wrong.extend(list.lines().map(|fault| format!("{what}: {fault}")));
                let faults = std::mem::take(&mut *faults.lock().expect("a list"));
                wrong.extend(faults.into_iter().map(|fault| format!("{what}: {fault}")));
                screenshots(&tab, &what, size.0);
            }
        }
        if let Some(folder) = std::env::var_os("SOFTMAX_SCREENSHOTS") {
            let pdf = tab.print_to_pdf(None).expect("a PDF");
            std::fs::write(Path::new(&folder).join(format!("{name}.pdf")), pdf).expect("a file");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn marks_say_what_they_are() {
    let browser = browser();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("page.html");
    std::fs::write(&file, html(&[sample_report(&BIG)])).expect("a file");
    let (tab, _) = tab(&browser);
    show(&tab, &file, (360, 800), "light");
    let tip = "(() => { const tip = document.querySelector('.tip'); return tip.hidden ? '' : tip.textContent })()";
    assert_eq!(evaluate(&tab, tip), "");
    evaluate(&tab, "document.querySelector('svg.chart').focus(); ''");
    tab.press_key("ArrowRight").expect("a key");
    let first = evaluate(&tab, tip);
    assert!(first.starts_with("softmax f32 4 x 1024, 1 thread, avx512: "), "{first}");
    tab.press_key("ArrowRight").expect("a key");
    assert!(evaluate(&tab, tip).contains("avx2"));
    tab.press_key("Escape").expect("a key");
    assert_eq!(evaluate(&tab, tip), "");
    let touch = "(() => {
        const mark = document.querySelectorAll('svg.chart')[1].querySelector('.m');
        mark.scrollIntoView({ block: 'center' });
        const { left, top } = mark.getBoundingClientRect();
        mark.dispatchEvent(new PointerEvent('pointerdown', { bubbles: true, clientX: left, clientY: top, pointerType: 'touch' }));
        return '';
    })()";
    evaluate(&tab, touch);
    assert!(evaluate(&tab, tip).contains("G elements/s"));

    // Without scripts the browser itself shows the titles.
    tab.call_method(Emulation::SetScriptExecutionDisabled { value: true }).expect("no scripts");
    show(&tab, &file, (360, 800), "light");
    let titles = "String(document.querySelectorAll('.m > title').length)";
    assert!(evaluate(&tab, titles).parse::<usize>().expect("a number") > 100);
    assert_eq!(evaluate(&tab, &CHECK.replace("CHARTS", "4")), "");
}
