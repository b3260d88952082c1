use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use tempfile::TempDir;

use super::record::{Admin, Body, Call, CallUsage, Connection, Decision, Head, Kernel, Millis};
use super::*;
use crate::clock::Clock;
use crate::identity::{Container, Identity, Process};
use crate::llm::{DialectKind, Usage};
use crate::money::Pico;
use crate::refusal::Reason;

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

fn start() -> Timestamp {
    "2026-11-23T09:00:00.123456Z".parse().unwrap()
}

fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicI64::new(start().as_microsecond())))
}

fn open(dir: &Path) -> Audit {
    open_at(dir, &clock())
}

fn open_at(dir: &Path, clock: &Arc<TestClock>) -> Audit {
    let clock: Arc<TestClock> = Arc::clone(clock);
    Audit::open(AuditSettings {
        dir: dir.to_owned(),
        clock,
    })
    .unwrap()
}

fn host(id: &str) -> Head {
    Head::of_host(start(), id)
}

fn simple(id: &str) -> AuditRecord {
    AuditRecord {
        head: host(id),
        body: Body::Call(Box::default()),
        findings: Vec::new(),
    }
}

fn write(dir: &Path, ids: &[&str]) {
    let audit = open(dir);
    for id in ids {
        audit.slot().unwrap().record(simple(id));
    }
}

fn only_file(dir: &Path) -> PathBuf {
    let mut files = chain::files(dir).unwrap();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

fn caller() -> Identity {
    Identity {
        agent: "coder".into(),
        owner: "platform-team".into(),
        run: "r1".into(),
        cgroup: "/docker/c1".into(),
        container: Some(Container {
            id: "c1".into(),
            name: "web".into(),
            image: "img:1".into(),
        }),
        unit: None,
        process: Process {
            pid: 1234,
            uid: 1000,
            exe: Some("/usr/bin/python3.11".into()),
            comm: "python3".into(),
        },
    }
}

fn full_call() -> Call {
    Call {
        side: false,
        original_destination: Some("203.0.113.10:443".parse().unwrap()),
        sni: Some("api.openai.com".into()),
        provider: Some("openai".into()),
        dialect: Some(DialectKind::OpenaiChat),
        endpoint: Some("/v1/chat/completions".into()),
        stream: Some(true),
        model_requested: Some("gpt-5".into()),
        model: Some("gpt-5-2026-08-01".into()),
        key: Some("prod-1".into()),
        decision: Decision::Allowed,
        reason: None,
        why: None,
        would_refuse: vec![],
        rewrites: vec!["key".into(), "include_usage".into()],
        usage: Some(CallUsage::Known(Usage {
            input: 12,
            output: 34,
            ..Usage::default()
        })),
        cost_pico_usd: Some(Pico(123_000_000)),
        cause: Some(crate::ledger::Cause::Useful),
        reserved_pico_usd: Some(Pico(456_000_000)),
        finish: Some("stop".into()),
        tools_declared: vec!["Read".into(), "Bash".into()],
        tools_called: vec!["Read".into()],
        tools_denied: Vec::new(),
        other_usage: Vec::new(),
        client_retries: 0,
        status: Some(200),
        request_bytes: Some(2048),
        reply_bytes: Some(4096),
        first_token_ms: Some(Millis(180_250)),
        duration_ms: Some(Duration::from_micros(2_310_700).into()),
        added_us: Some(61),
    }
}

#[test]
fn a_call_has_every_field_of_version_1_in_order() {
    let record = AuditRecord {
        head: Head::of_caller(start(), "01JX", &caller()),
        body: Body::Call(Box::new(full_call())),
        findings: vec![],
    };
    let expected = concat!(
        r#"{"v":1,"time":"2026-11-23T09:00:00.123456Z","id":"01JX","kind":"call","#,
        r#""agent":"coder","owner":"platform-team","run":"r1","session":null,"#,
        r#""cgroup":"/docker/c1","container":{"id":"c1","name":"web","image":"img:1"},"unit":null,"#,
        r#""process":{"pid":1234,"uid":1000,"exe":"/usr/bin/python3.11","comm":"python3"},"#,
        r#""original_destination":"203.0.113.10:443","sni":"api.openai.com","#,
        r#""provider":"openai","dialect":"openai-chat","endpoint":"/v1/chat/completions","stream":true,"#,
        r#""model_requested":"gpt-5","model":"gpt-5-2026-08-01","key":"prod-1","#,
        r#""decision":"allowed","reason":null,"why":null,"would_refuse":[],"rewrites":["key","include_usage"],"#,
        r#""usage":{"known":true,"input":12,"cache_read":0,"cache_write_5m":0,"cache_write_1h":0,"output":34,"reasoning":0},"#,
        r#""cost_pico_usd":123000000,"cause":"useful","reserved_pico_usd":456000000,"finish":"stop","#,
        r#""tools_declared":["Read","Bash"],"tools_called":["Read"],"client_retries":0,"#,
        r#""status":200,"request_bytes":2048,"reply_bytes":4096,"#,
        r#""first_token_ms":180.2,"duration_ms":2310.7,"added_us":61,"#,
        r#""findings":[],"prev":"P"}"#,
    );
    assert_eq!(record.line("P").unwrap(), expected);
}

#[test]
fn a_refused_call_has_the_same_fields_and_unknown_usage_is_null() {
    let names = |line: &str| {
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
        value.keys().cloned().collect::<Vec<_>>()
    };
    let full = AuditRecord {
        head: Head::of_caller(start(), "x", &caller()),
        body: Body::Call(Box::new(full_call())),
        findings: vec![],
    };
    let refused = Call {
        decision: Decision::Refused,
        reason: Some(Reason::BudgetExceeded),
        usage: Some(CallUsage::Unknown),
        ..Call::default()
    };
    let refused = AuditRecord {
        head: host("x"),
        body: Body::Call(Box::new(refused)),
        findings: vec![],
    };
    let line = refused.line("").unwrap();
    assert_eq!(names(&full.line("").unwrap()), names(&line));
    assert!(line.contains(r#""decision":"refused","reason":"budget_exceeded""#));
    assert!(line.contains(r#""usage":{"known":false,"input":null,"#), "{line}");
    assert!(line.contains(r#""cost_pico_usd":null"#));
}

#[test]
fn the_other_kinds_share_the_head() {
    for (kind, body) in [
        ("connection", Body::Connection(Connection::default())),
        (
            "kernel",
            Body::Kernel(Kernel {
                vector: "udp".into(),
                count: 3,
                ..Kernel::default()
            }),
        ),
        (
            "admin",
            Body::Admin(Admin {
                action: "freeze".into(),
                ..Admin::default()
            }),
        ),
        (
            "alert",
            AuditRecord::alert(host(""), "loop", "m".into(), None).body,
        ),
    ] {
        let record = AuditRecord {
            head: host("x"),
            body,
            findings: vec!["f".into()],
        };
        let line = record.line("p").unwrap();
        assert!(line.starts_with(&format!(
            r#"{{"v":1,"time":"2026-11-23T09:00:00.123456Z","id":"x","kind":"{kind}","agent":null,"#
        )));
        assert!(line.ends_with(r#""findings":["f"],"prev":"p"}"#));
    }
}

#[test]
fn the_chain_goes_on_across_restarts_and_a_person_can_check_it() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &["a", "b"]);
    write(dir.path(), &["c"]);
    let report = verify(dir.path()).unwrap();
    assert!(
        report.is_sound() && report.from_genesis && !report.unfinished,
        "{report:?}"
    );
    assert_eq!((report.files, report.records, report.torn), (1, 3, 0));
    let file = only_file(dir.path());
    assert_eq!(file.file_name().unwrap(), "audit-20261123-000001.jsonl");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o640
    );
    // The commands of the module's documentation, with sha256sum as the judge.
    let script = r#"sed -n 2p "$0" | sed -E 's/,"hash":"sha256:[0-9a-f]{64}"\}$/}/' | tr -d '\n' | sha256sum | cut -d' ' -f1"#;
    let output = std::process::Command::new("sh")
        .arg("-c")
        .arg(script)
        .arg(&file)
        .output()
        .unwrap();
    let by_hand = String::from_utf8(output.stdout).unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[1].ends_with(&format!(r#""hash":"sha256:{}"}}"#, by_hand.trim())),
        "{by_hand}"
    );
    assert!(lines[2].contains(&format!(r#""prev":"sha256:{}""#, by_hand.trim())));
}

#[test]
fn every_kind_of_tampering_is_found_at_its_line() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &["a", "b", "c", "d"]);
    let file = only_file(dir.path());
    let good = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<String> = good.lines().map(str::to_owned).collect();
    let check = |lines: &[String]| {
        std::fs::write(&file, lines.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
        verify(dir.path()).unwrap()
    };
    let without = |n: usize| {
        lines
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != n)
            .map(|(_, l)| l.clone())
            .collect::<Vec<_>>()
    };
    let mut edited = lines.clone();
    edited[1] = edited[1].replace(r#""id":"b""#, r#""id":"B""#);
    assert_eq!(check(&edited).broken.unwrap().line, 2);
    // Edited and given a new hash: the next record does not follow it.
    let text = edited[1].clone();
    let open = text.split(r#","hash":"#).next().unwrap();
    edited[1] = chain::seal(&format!("{open}}}")).0.trim_end().to_owned();
    assert_eq!(check(&edited).broken.unwrap().line, 3);
    assert_eq!(check(&without(1)).broken.unwrap().line, 2);
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    assert_eq!(check(&swapped).broken.unwrap().line, 2);
    let mut nonsense = lines.clone();
    nonsense[1] = "{".into();
    let broken = check(&nonsense).broken.unwrap();
    assert_eq!(broken.line, 3);
    assert!(
        broken.to_string().contains("audit-20261123-000001.jsonl:3: "),
        "{broken}"
    );
    let mut member = lines.clone();
    member[3] = member[3].replace("\"}", "\",\"x\":1}");
    assert_eq!(check(&member).broken.unwrap().line, 4);
    // What a chain can't show by itself, and how the report says so.
    let first = check(&without(0));
    assert!(first.is_sound() && !first.from_genesis);
    let sound = check(&lines);
    let last = check(&without(3));
    assert!(last.is_sound() && last.head != sound.head);
}

#[test]
fn a_line_cut_anywhere_is_kept_and_accounted_for() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &["a", "b"]);
    let bytes = std::fs::read(only_file(dir.path())).unwrap();
    let second = memchr::memchr(b'\n', &bytes).unwrap() + 1;
    let newline_only = bytes.len() - 1;
    for cut in (0..bytes.len())
        .step_by(37)
        .chain([second, second + 1, newline_only])
    {
        let copy = TempDir::new().unwrap();
        let file = copy.path().join("audit-20261123-000001.jsonl");
        std::fs::write(&file, &bytes[..cut]).unwrap();
        write(copy.path(), &["c", "d"]);
        let report = verify(copy.path()).unwrap();
        assert!(
            report.is_sound() && report.from_genesis,
            "cut at {cut}: {report:?}"
        );
        let whole_lines = cut == 0 || cut == second || cut == newline_only || cut + 1 == second;
        assert_eq!(report.torn, u64::from(!whole_lines), "cut at {cut}");
        let text = std::fs::read(&file).unwrap();
        assert!(text.starts_with(&bytes[..cut]), "what was there stays there");
        if report.torn == 1 {
            // The account holds only for those very bytes.
            let mut changed = text.clone();
            let at = cut - 1;
            changed[at] = if changed[at] == b'#' { b'%' } else { b'#' };
            std::fs::write(&file, changed).unwrap();
            assert!(!verify(copy.path()).unwrap().is_sound(), "cut at {cut}");
        }
    }
}

#[test]
fn files_follow_the_day_and_the_chain_goes_on() {
    let dir = TempDir::new().unwrap();
    let clock = clock();
    let audit = open_at(dir.path(), &clock);
    let wait = |count| {
        while audit.stats().written < count {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    audit.slot().unwrap().record(simple("a"));
    wait(1);
    clock.0.fetch_add(86_400_000_000, Ordering::Relaxed);
    audit.slot().unwrap().record(simple("b"));
    wait(2);
    clock.0.fetch_sub(86_400_000_000, Ordering::Relaxed);
    audit.slot().unwrap().record(simple("c"));
    wait(3);
    let head = audit.stats().head;
    drop(audit);
    let names: Vec<_> = chain::files(dir.path())
        .unwrap()
        .iter()
        .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        ["audit-20261123-000001.jsonl", "audit-20261124-000001.jsonl"]
    );
    let report = verify(dir.path()).unwrap();
    assert!(report.is_sound());
    assert_eq!((report.files, report.records, report.head), (2, 3, Some(head)));
    std::fs::remove_file(dir.path().join(&names[0])).unwrap();
    assert!(!verify(dir.path()).unwrap().from_genesis);
}

#[test]
fn a_torn_line_of_yesterday_is_accounted_for_in_yesterdays_file() {
    let dir = TempDir::new().unwrap();
    let clock = clock();
    drop(open_at(dir.path(), &clock));
    std::fs::write(dir.path().join("audit-20261122-000001.jsonl"), "{\"v\":1,\"ti").unwrap();
    let audit = open_at(dir.path(), &clock);
    audit.slot().unwrap().record(simple("a"));
    drop(audit);
    let report = verify(dir.path()).unwrap();
    assert!(report.is_sound() && report.from_genesis, "{report:?}");
    assert_eq!((report.files, report.records, report.torn), (2, 2, 1));
}

#[test]
fn a_dropped_slot_leaves_a_record_that_says_so() {
    let dir = TempDir::new().unwrap();
    let audit = open(dir.path());
    let mut slot = audit.slot().unwrap();
    slot.expect("01JX", &"coder".into());
    drop(slot);
    assert_eq!(audit.stats().abandoned, 1);
    drop(audit);
    let lines = tail::last(dir.path(), 10).unwrap();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].contains(r#""id":"01JX","kind":"alert","agent":"coder""#),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains(r#""alert":"audit.lost""#));
}

#[test]
fn slots_are_bounded_and_come_back() {
    let dir = TempDir::new().unwrap();
    let audit = open(dir.path());
    let mut slots: Vec<_> = (0..SLOTS).map(|_| audit.slot().unwrap()).collect();
    assert_eq!(audit.slot().err(), Some(AuditFull::Busy));
    slots.pop().unwrap().record(simple("a"));
    while audit.stats().pending == SLOTS {
        std::thread::sleep(Duration::from_millis(1));
    }
    let again = audit.slot().unwrap();
    // Every one of them can hand over at once without waiting or loss.
    again.record(simple("b"));
    drop(slots);
    drop(audit);
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.records, u64::try_from(SLOTS).unwrap() + 1);
}

#[test]
fn while_nothing_can_be_written_there_are_no_slots_and_nothing_is_lost() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("audit");
    let audit = open(&dir);
    let held = audit.slot().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    held.record(simple("a"));
    let refused = loop {
        match audit.slot() {
            Ok(slot) => {
                slot.record(simple("b"));
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(&refused, AuditFull::Failing(why) if why.contains("audit")),
        "{refused:?}"
    );
    let handed_over = audit.stats().pending;
    std::fs::create_dir(&dir).unwrap();
    while audit.stats().failing.is_some() || audit.stats().pending > 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
    audit.slot().unwrap().record(simple("c"));
    drop(audit);
    let report = verify(&dir).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.records, u64::try_from(handed_over).unwrap() + 1);
}

#[test]
fn a_key_in_any_field_never_reaches_the_file() {
    let canary = format!("sk-{}", "c4n4ryC4N4RYc4n4ry");
    let dir = TempDir::new().unwrap();
    let audit = open(dir.path());
    let mut call = full_call();
    for field in [
        &mut call.sni,
        &mut call.endpoint,
        &mut call.model_requested,
        &mut call.model,
        &mut call.finish,
    ] {
        *field = Some(format!("x {canary} y"));
    }
    call.tools_declared = vec![canary.clone()];
    call.tools_called = vec![format!("Bearer {canary}")];
    let mut head = Head::of_caller(start(), &canary, &caller());
    head.session = Some(format!("https://h/?api_key={canary}"));
    head.cgroup = Some(canary.clone());
    audit.slot().unwrap().record(AuditRecord {
        head,
        body: Body::Call(Box::new(call)),
        findings: vec![canary.clone()],
    });
    drop(audit);
    let text = std::fs::read_to_string(only_file(dir.path())).unwrap();
    assert!(!text.contains("c4n4ry"), "{text}");
    assert!(text.contains(r#""key":"prod-1""#), "the key's name is no secret");
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn what_a_client_made_too_long_is_cut() {
    let dir = TempDir::new().unwrap();
    let audit = open(dir.path());
    let mut call = full_call();
    call.model_requested = Some("ü".repeat(10_000));
    call.tools_declared = vec!["t".repeat(5_000); 5_000];
    audit.slot().unwrap().record(AuditRecord {
        head: host("a"),
        body: Body::Call(Box::new(call)),
        findings: Vec::new(),
    });
    drop(audit);
    assert!(std::fs::metadata(only_file(dir.path())).unwrap().len() < 300_000);
    assert!(verify(dir.path()).unwrap().is_sound());
}

#[test]
fn a_second_writer_is_turned_away() {
    let dir = TempDir::new().unwrap();
    let _audit = open(dir.path());
    let second = Audit::open(AuditSettings {
        dir: dir.path().to_owned(),
        clock: clock(),
    });
    assert!(matches!(second, Err(AuditError::Locked(_))));
}

#[test]
fn tail_gives_the_last_lines_and_follows() {
    let dir = TempDir::new().unwrap();
    let mut follow = tail::Follow::from_end(dir.path()).unwrap();
    assert!(follow.poll().unwrap().is_empty());
    write(dir.path(), &["a", "b", "c"]);
    let last = tail::last(dir.path(), 2).unwrap();
    assert_eq!(last.len(), 2);
    assert!(last[0].contains(r#""id":"b""#) && last[1].contains(r#""id":"c""#));
    assert_eq!(follow.poll().unwrap().len(), 3);
    let clock = clock();
    clock.0.fetch_add(86_400_000_000, Ordering::Relaxed);
    let audit = open_at(dir.path(), &clock);
    audit.slot().unwrap().record(simple("d"));
    drop(audit);
    assert_eq!(follow.poll().unwrap().len(), 1);
    assert!(follow.poll().unwrap().is_empty());
    assert_eq!(tail::last(dir.path(), 100).unwrap().len(), 4);
    let mut late = tail::Follow::from_end(dir.path()).unwrap();
    assert!(late.poll().unwrap().is_empty());
}
