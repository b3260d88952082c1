//! The commands over records that the audit log itself wrote.

use super::*;
use crate::audit::record::{Body, Call, CallUsage, Head};
use crate::audit::{Audit as Log, AuditRecord, AuditSettings};
use crate::llm::Usage;
use crate::money::Pico;

fn written(state_dir: &Path) -> Vec<String> {
    let settings = AuditSettings {
        dir: state_dir.join(DIRECTORY),
        clock: crate::clock::system(),
    };
    let log = Log::open(settings).unwrap();
    for (id, usage) in [
        ("a", CallUsage::Unknown),
        (
            "b",
            CallUsage::Known(Usage {
                input: 3,
                output: 4,
                ..Usage::default()
            }),
        ),
    ] {
        let call = Call {
            provider: Some("openai".into()),
            model: Some("gpt-5".into()),
            usage: Some(usage),
            cost_pico_usd: Some(Pico(1_000_000_000)),
            status: Some(200),
            ..Call::default()
        };
        log.slot().unwrap().record(AuditRecord {
            head: Head::of_host("2026-11-23T09:00:00.5Z".parse().unwrap(), id),
            body: Body::Call(Box::new(call)),
            findings: Vec::new(),
        });
    }
    drop(log);
    last(&state_dir.join(DIRECTORY), 10).unwrap()
}

#[test]
fn a_written_record_reads_well() {
    let dir = tempfile::tempdir().unwrap();
    let records = written(dir.path());
    let lines: Vec<String> = records.iter().map(|record| line::readable(record)).collect();
    assert_eq!(
        lines,
        [
            "2026-11-23 09:00:00  -            call       allowed gpt-5 at openai, $0.001, usage unknown, 200",
            "2026-11-23 09:00:00  -            call       allowed gpt-5 at openai, $0.001, 3 in, 4 out, 200",
        ]
    );
}

#[test]
fn a_changed_record_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let audit = dir.path().join(DIRECTORY);
    let command = Audit::Verify {
        dir: Some(audit.clone()),
    };
    assert_eq!(command.run(Path::new("/unused")).unwrap(), OK);
    let file = std::fs::read_dir(&audit)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("gpt-5", "gpt-4", 1)).unwrap();
    assert_eq!(command.run(Path::new("/unused")).unwrap(), FAILED);
    assert!(verdict(&verify(&audit).unwrap(), &audit).contains("BROKEN"));
}
