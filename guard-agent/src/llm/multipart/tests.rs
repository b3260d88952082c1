use super::*;

const TYPE: &str = "multipart/form-data; boundary=b0";

/// A form of these parts: what stands before the blank line, and what stands behind it.
fn form(all: &[(&str, &str)]) -> String {
    let each = all
        .iter()
        .map(|(head, content)| format!("--b0\r\n{head}\r\n\r\n{content}\r\n"));
    each.collect::<String>() + "--b0--\r\n"
}

fn field(name: &str) -> String {
    format!("Content-Disposition: form-data; name=\"{name}\"")
}

#[test]
fn fields_and_files_are_read_as_they_stand() {
    let head =
        "content-disposition: form-data; name=\"file\"; filename=\"a;=b.wav\"\r\nContent-Type: audio/wav";
    let body = form(&[
        (&field("model"), "whisper-1"),
        (head, "RIFF\r\n\r\n--b\n"),
        (&field("image[]"), ""),
    ]);
    let parts = parts(TYPE, body.as_bytes()).unwrap();
    let names: Vec<_> = parts.iter().map(|part| (part.name, part.is_file)).collect();
    assert_eq!(names, [("model", false), ("file", true), ("image[]", false)]);
    assert_eq!(parts[0].text().unwrap(), "whisper-1");
    assert_eq!(parts[1].content, b"RIFF\r\n\r\n--b\n");
    assert_eq!(parts[1].media, Some("audio/wav"));
    assert!(parts[1].text().is_err() && parts[2].content.is_empty());
}

#[test]
fn what_readers_differ_on_is_refused() {
    let good = form(&[(&field("model"), "m")]);
    assert!(parts(TYPE, good.as_bytes()).is_ok());
    let part = |head: &str| form(&[(head, "m")]);
    for body in [
        String::new(),
        "--b0--\r\n".to_owned(),
        format!("preamble\r\n{good}"),
        format!("\r\n{good}"),
        format!("{good}epilogue"),
        format!("{good}\r\n"),
        good.replace("--b0\r\n", "--b0 \r\n"),
        good.replace("\r\n", "\n"),
        good.replace("m\r\n--b0--", "m\n--b0--"),
        good.replace("--b0--", "--b0"),
        good.replace("--b0--\r\n", ""),
        // A boundary within a line, which some readers end a part at.
        form(&[(&field("model"), "m--b0\r\nx")]),
        form(&[(&field("model"), "m\n--b0\nx")]),
        form(&[(&field("model"), "m\r\n--b01\r\nx")]),
        part(""),
        part("Content-Type: text/plain"),
        part("Content-Disposition: attachment; name=\"model\""),
        part("Content-Disposition: form-data; name=mo/del"),
        part("Content-Disposition: form-data; name="),
        part("Content-Disposition: form-data; name=model x"),
        part("Content-Disposition: form-data; name=model; name=x"),
        part("Content-Disposition: form-data; name=\"model\"; name=\"x\""),
        part("Content-Disposition: form-data; name=\"mo\\\"del\""),
        part("Content-Disposition: form-data; name=\"mo%64el\""),
        part("Content-Disposition: form-data; name=\"\""),
        part("Content-Disposition: form-data; name*=utf-8''model; name=\"x\""),
        part("Content-Disposition: form-data; name=\"model\"; size=3"),
        part("Content-Disposition: form-data; name=\"model\" x"),
        part("Content-Disposition: form-data;\r\n name=\"model\""),
        part(&format!("{}\r\n{}", field("a"), field("model"))),
        part(&format!(
            "{}\r\nContent-Transfer-Encoding: base64",
            field("model")
        )),
        part(&format!("{}\r\nX-Other: 1", field("model"))),
        part(&format!(
            "{}\r\nContent-Length: {}",
            field("model"),
            "1".repeat(5_000)
        )),
    ] {
        assert!(parts(TYPE, body.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn a_boundary_is_one_plain_word() {
    let body = form(&[(&field("model"), "m")]);
    for content_type in [
        TYPE,
        "Multipart/Form-Data;boundary=\"b0\"",
        "multipart/form-data; Boundary=b0",
    ] {
        assert!(parts(content_type, body.as_bytes()).is_ok(), "{content_type}");
    }
    for content_type in [
        "multipart/form-data",
        "multipart/mixed; boundary=b0",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"b0",
        "multipart/form-data; boundary=b0; charset=utf-8",
        "multipart/form-data; boundary=b0; boundary=b1",
        "multipart/form-data; charset=utf-8; boundary=b0",
        "multipart/form-data; boundary=b0, multipart/form-data; boundary=b1",
        "multipart/form-data; boundary=b 0",
        "application/json",
        "",
    ] {
        assert!(parts(content_type, body.as_bytes()).is_err(), "{content_type}");
    }
    let long = "b".repeat(71);
    assert!(parts(&format!("multipart/form-data; boundary={long}"), b"").is_err());
}

#[test]
fn a_form_has_a_bounded_number_of_parts() {
    let one = field("a");
    let form_of = |count| form(&vec![(one.as_str(), ""); count]);
    assert!(parts(TYPE, form_of(128).as_bytes()).is_ok());
    assert!(parts(TYPE, form_of(129).as_bytes()).is_err());
}

#[test]
fn a_field_that_decides_is_plain_text() {
    for (media, good) in [
        ("text/plain", true),
        ("Text/Plain; charset=UTF-8", true),
        ("text/plain; charset=utf-16", false),
        ("application/json", false),
    ] {
        let body = form(&[(&format!("{}\r\nContent-Type: {media}", field("model")), "m")]);
        let parts = parts(TYPE, body.as_bytes()).unwrap();
        assert_eq!(parts[0].text().is_ok(), good, "{media}");
    }
}
