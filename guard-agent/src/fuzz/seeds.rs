//! What the fuzzer begins with: the fixtures of the golden tests, and small inputs of everything else.

use std::path::PathBuf;

use super::coded::Codec;
use super::replies::{BINARY, mode};
use super::sockets::framed;

mod connections;
mod ledger;
mod realtime;

use connections::{heads, hellos, queries};

type Seeds = Vec<(String, Vec<u8>)>;

/// Larger fixtures only slow the search down.
const LARGEST: usize = 12 * 1024;

/// The seeds of a target, by name, sorted.
pub(super) fn of(target: &str) -> Seeds {
    let mut all = match target {
        "config" => configurations(),
        "ledger" => ledger::records(),
        "client_hello" => hellos(),
        "http_head" => heads(),
        "dns" => queries(),
        "seam" => messages(),
        "socket_frames" => frames(),
        "socket_responses" => socket(),
        "socket_realtime" => realtime::openai(),
        "socket_live" => realtime::live(),
        "gzip" => coded(Codec::Gzip),
        "deflate" => coded(Codec::Deflate),
        "brotli" => coded(Codec::Brotli),
        "zstd" => coded(Codec::Zstd),
        "sse" => with(&[0], fixtures("openai-chat", ".reply.sse"), "sse"),
        "event_stream" => with(&[1, 0], fixtures("bedrock-converse", ".reply.events"), "events"),
        "lines" => with(&[7], fixtures("ollama", ".reply.ndjson"), "lines"),
        "json_edit" => with(&[0b10, 0x21], fixtures("openai-chat", ".request.json"), "json"),
        "body_edits" => edited(),
        "tool_gate" => arguments(),
        "pictures" => named(&crate::llm::pictures::heads()),
        "rerank" => reranks(),
        "media" => media(),
        "multipart" => forms(),
        format => calls(&format.replace('_', "-")),
    };
    all.sort();
    all
}

/// The golden fixtures of one format whose names end so.
fn fixtures(format: &str, ending: &str) -> Seeds {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/llm/golden")
        .join(format);
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(ending)?.to_owned();
            Some((name, std::fs::read(&path).unwrap()))
        })
        .filter(|(_, bytes)| bytes.len() <= LARGEST)
        .collect()
}

/// Queries with documents of every kind.
fn reranks() -> Seeds {
    let mut all = with(&[], fixtures("cohere", ".rerank.json"), "cohere");
    all.extend(with(&[], fixtures("embeddings", ".rerank.json"), "voyage"));
    let long = format!(
        r#"{{"model":"m","query":"{}","documents":["{}",{{"text":"b","title":"\u0041"}},""]}}"#,
        "q".repeat(40),
        "x".repeat(700)
    );
    all.push(("long".to_owned(), long.into_bytes()));
    let image = r#"{"model":"m","query":"q","documents":[{"image":"https://a"}]}"#;
    all.push(("image".to_owned(), image.as_bytes().to_vec()));
    all
}

/// Speech and images, asked for in JSON, and every reply.
fn media() -> Seeds {
    let mut all = calls("media");
    for (how, ending) in [(0, "images"), (1, "speech"), (2, "edit")] {
        all.extend(with(
            &[0, how],
            fixtures("media", &format!(".{ending}.json")),
            ending,
        ));
    }
    all
}

/// Forms.
fn forms() -> Seeds {
    let mut all = with(&[], fixtures("media", ".transcription.form"), "transcription");
    all.extend(with(&[], fixtures("media", ".edit.form"), "edit"));
    let two = "--guard0\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--guard\r\n--guard0--\r\n";
    all.push(("short".to_owned(), two.as_bytes().to_vec()));
    all
}

/// The same behind these first bytes.
fn with(first: &[u8], all: Seeds, kind: &str) -> Seeds {
    all.into_iter()
        .map(|(name, bytes)| (format!("{name}.{kind}"), [first, &bytes].concat()))
        .collect()
}

fn named(all: &[(&str, Vec<u8>)]) -> Seeds {
    all.iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
        .collect()
}

/// The same with other numbers: the values of members, in the order of the text.
fn counted(all: &Seeds, number: impl Fn(u64) -> u64) -> Seeds {
    let other = |bytes: &[u8]| {
        let mut out = Vec::with_capacity(bytes.len());
        let mut at = 0;
        let mut rest = bytes.iter().peekable();
        let mut value = false;
        while let Some(&byte) = rest.next() {
            if value && byte.is_ascii_digit() {
                while rest.next_if(|next| next.is_ascii_digit()).is_some() {}
                at += 1;
                out.extend_from_slice(number(at).to_string().as_bytes());
            } else {
                out.push(byte);
            }
            value = byte == b':' || value && byte == b' ';
        }
        out
    };
    all.iter()
        .map(|(name, bytes)| (name.clone(), other(bytes)))
        .collect()
}

/// Requests, as they are and with every edit; replies, free and under tool rules. Each too with numbers that nobody sends.
fn calls(format: &str) -> Seeds {
    let requests = fixtures(format, ".request.json");
    let mut all = with(&[0, 0], requests.clone(), "request");
    all.extend(with(&[0, 0], counted(&requests, |_| u64::MAX), "large"));
    all.extend(with(&[0b1110, 200, b'\n', b' '], requests.clone(), "spaced"));
    all.extend(with(&[0b1110, 200], requests, "edited"));
    let mut plain = fixtures(format, ".reply.json");
    plain.retain(|(name, _)| name == "plain");
    let json = mode("application/json", false, 0);
    let large = counted(&plain, |_| u64::MAX);
    all.extend(with(&[json, 0], large, "_reply_large"));
    let rising = counted(&plain, |at| at * 100);
    all.extend(with(&[json, 0], rising, "_reply_rising"));
    let uneven = counted(&plain, |at| if at % 2 == 0 { 1 } else { 1_000_000 });
    all.extend(with(&[json, 0], uneven, "_reply_uneven"));
    for (ending, media) in [
        (".reply.json", "application/json"),
        (".reply.sse", "text/event-stream; charset=utf-8"),
        (".reply.ndjson", ""),
        (".reply.events", ""),
    ] {
        let replies = fixtures(format, ending);
        let kind = ending.replace('.', "_");
        all.extend(with(&[mode(media, false, 0), 0], replies.clone(), &kind));
        all.extend(with(
            &[mode(media, true, 1), 7],
            replies,
            &format!("{kind}_judged"),
        ));
    }
    if all.iter().all(|(name, _)| !name.contains("_reply")) {
        all.push((
            "empty.reply".to_owned(),
            [&[mode("", false, 0), 0][..], b"{}"].concat(),
        ));
    }
    all
}

fn messages() -> Seeds {
    let keeper = [
        r#"{"Start":{"version":2,"since":"2026-11-24T00:00:00Z","restarts":1,"last_end":null}}"#,
        r#"{"Start":{"version":2,"since":"2026-11-24T00:00:00Z","restarts":1000,"last_end":"signal 9"}}"#,
        r#"{"Listen":{"netns_cookie":7,"sockets":["redirect-v4","dns-v6"]}}"#,
        r#"{"Answer":{"id":3,"answer":{"IsGoverned":true}}}"#,
        r#"{"Answer":{"id":3,"answer":{"Run":{"Ok":{"id":"r","cgroup":"/a/b"}}}}}"#,
        r#"{"Proof":{"NotEnforcing":"no programs"}}"#,
        r#"{"Refusals":[{"agent":"coder","reason":4,"destination":"203.0.113.7:443","count":2}]}"#,
        r#"{"Happened":{"Repaired":{"program":"connect4"}}}"#,
        r#""Stop""#,
    ];
    let worker = [
        r#"{"Ready":{"version":2}}"#,
        r#"{"Failed":"no"}"#,
        r#"{"Ask":{"id":1,"ask":{"Resolver":{"netns_cookie":7,"resolver":"9.9.9.9","stream":false}}}}"#,
        r#"{"Ask":{"id":1,"ask":{"Run":{"agent":"coder"}}}}"#,
        r#"{"Reloaded":{"id":1,"outcome":{"Err":"line 3"}}}"#,
        r#""Alive""#,
    ];
    let one = |side: u8, who: &'static str, all: &[&str]| -> Seeds {
        let each = |(number, text): (usize, &&str)| {
            (format!("{who}-{number}"), [&[side][..], text.as_bytes()].concat())
        };
        all.iter().enumerate().map(each).collect()
    };
    [one(0, "keeper", &keeper), one(1, "worker", &worker)].concat()
}

fn coded(codec: Codec) -> Seeds {
    let mut all = Seeds::new();
    for (name, bytes) in fixtures("openai-chat", ".reply.json").into_iter().take(2) {
        let packed = codec.coded(&bytes).unwrap();
        all.push((format!("{name}.coded"), [&[0, 5][..], &packed].concat()));
        all.push((format!("{name}.plain"), [&[1, 9][..], &bytes].concat()));
        all.push((format!("{name}.followed"), [&[2, 9][..], &bytes].concat()));
    }
    all
}

fn arguments() -> Seeds {
    let one = |tool: u8, text: &str| [&[tool][..], text.as_bytes()].concat();
    named(&[
        ("shell", one(0, r#"{"command":"ls -l","timeout":7}"#)),
        ("list", one(0, r#"{"command":["sh","-c","rm -rf ."]}"#)),
        ("path", one(1, r#"{"path":"/home/agent/a"}"#)),
        ("free", one(2, "*** Begin Patch\n+rm -rf x")),
        ("twice", one(0, r#"{"command":"ls","comm\u0061nd":"ls"}"#)),
    ])
}

/// Bodies of the formats that take every edit.
fn edited() -> Seeds {
    let mut all = Seeds::new();
    for (pick, format) in (0..).zip([
        "openai-chat",
        "anthropic-messages",
        "openai-responses",
        "openai-completions",
    ]) {
        let bodies = fixtures(format, ".request.json");
        all.extend(with(
            &[pick, 0b0011_0000, 7],
            bodies.clone(),
            &format!("{format}.said"),
        ));
        all.extend(with(&[pick, 0b0011_1110, 8], bodies, &format!("{format}.all")));
    }
    all
}

/// Frames as they come, and texts to be framed.
fn frames() -> Seeds {
    let hello = br#"{"type":"response.create","model":"gpt-5","input":"hi"}"#;
    let close = [0x88, 0x82, 0, 0, 0, 0, 3, 0xe8];
    named(&[
        ("one", [&[0, 0][..], &framed(hello, 1)].concat()),
        ("parts", [&[0, 3][..], &framed(hello, 3), &close].concat()),
        ("texts", [&[0b111, 5][..], hello, b"\n", hello, b"\n"].concat()),
        ("long", [&[0b101, 200][..], &[b'x'; 1000]].concat()),
    ])
}

/// Messages of either side.
fn socket() -> Seeds {
    let mut all = Seeds::new();
    for (name, body) in fixtures("openai-responses", ".request.json") {
        let rest = body.strip_prefix(b"{").unwrap_or_default();
        let create = [br#"{"type":"response.create","stream_id":"a","#.as_slice(), rest].concat();
        all.push((
            format!("{name}.create"),
            [&[0b0011_1110, 8][..], &create].concat(),
        ));
    }
    for (name, stream) in fixtures("openai-responses", ".reply.sse") {
        let lines = stream.split(|byte| *byte == b'\n');
        let data: Vec<&[u8]> = lines.filter_map(|line| line.strip_prefix(b"data: ")).collect();
        let lines = data.join(&b"\n"[..]);
        all.push((format!("{name}.told"), [&[1, 0][..], &lines].concat()));
        all.push((format!("{name}.judged"), [&[3, 5][..], &lines].concat()));
    }
    let said = |text: &str| [&[0, 0][..], text.as_bytes()].concat();
    all.extend(named(&[
        (
            "cancel",
            said(r#"{"type":"response.cancel","response_id":"resp_1","event_id":null}"#),
        ),
        (
            "interrupt",
            said(r#"{"stream_id":"a","type":"response.interrupt","why":{}}"#),
        ),
        (
            "steer",
            said(r#"{"type":"response.steer","stream_id":"b","input":[]}"#),
        ),
    ]));
    all
}

fn configurations() -> Seeds {
    let text = |text: &str| text.as_bytes().to_vec();
    named(&[
        (
            "agent",
            text(
                "[[agent]]\nname = \"coder\"\nowner = \"team\" # é\nmatch = [{ cgroup = \"/coder/**\" }]\n\
                 providers = [\"openai\"]\nmodels = [\"gpt-5*\"]\nbudget = [{ window = \"day\", usd = 5.0 }]\n\n\
                 [agent.tools]\nallow = [\"*\"]\narguments = [{ tool = \"Bash\", at = \"/command\", deny = [\"*rm *\"] }]\n",
            ),
        ),
        (
            "unknown",
            text("[host]\nnmae = \"é\"\n[[agent]]\nname = 7\nowner = \"\"\nmatch = []\n"),
        ),
        (
            "broken",
            text("[[agent]\nname = \"a\nmodels = [\"[\"]\n[agent]\nname = \"b\"\n"),
        ),
    ])
}

#[test]
fn a_binary_fixture_is_read_as_a_binary_stream() {
    for (name, bytes) in fixtures("bedrock-converse", ".reply.events") {
        let stream = super::replies::binary(&bytes);
        assert!(stream.len() > bytes.len() && !BINARY.is_empty(), "{name}");
    }
}
