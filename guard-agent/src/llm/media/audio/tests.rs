use super::*;

fn wav_of(kind: u16, channels: u16, rate: u32, bits: u16, data: usize) -> Vec<u8> {
    let mut file = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0".to_vec();
    file.extend(kind.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    // What it says about its bytes per second is not believed.
    file.extend([0xff; 4]);
    file.extend([1, 0]);
    file.extend(bits.to_le_bytes());
    file.extend(b"data\x01\0\0\0");
    file.resize(file.len() + data, 0);
    file
}

/// Frames of MPEG 1 layer III at 128 kbit/s and 44.1 kHz: 417 bytes and 26.122 ms each.
fn mp3_of(frames: usize) -> Vec<u8> {
    let mut frame = vec![0xff, 0xfb, 0x90, 0x00];
    frame.resize(417, 0);
    frame.repeat(frames)
}

#[test]
fn a_wav_lasts_as_long_as_its_samples_whatever_it_says() {
    // Sixteen bits, one channel, 16 kHz: 32,000 bytes a second; ten seconds and the 44 bytes of the head.
    assert_eq!(longest_millis(&wav_of(1, 1, 16_000, 16, 320_000)), Some(10_002));
    assert_eq!(longest_millis(&wav_of(1, 2, 44_100, 16, 176_400)), Some(1_001));
    assert_eq!(longest_millis(&wav_of(1, 1, 1, 8, 100)), Some(144_000));
    assert_eq!(longest_millis(&wav_of(1, 1, 0, 16, 100)), None);
    assert_eq!(longest_millis(&wav_of(1, 0, 8_000, 16, 100)), None);
    // Telephone sound has a byte for a sample, whatever it says.
    assert_eq!(longest_millis(&wav_of(7, 1, 8_000, 8, 8_000)), Some(1_006));
    assert_eq!(longest_millis(&wav_of(7, 1, 8_000, 65_535, 8_000)), None);
    assert_eq!(longest_millis(&wav_of(6, 1, 8_000, 16, 8_000)), None);
    // Compressed in some way: no less than any speech codec takes.
    assert_eq!(longest_millis(&wav_of(49, 1, 8_000, 16, 7_456)), Some(10_000));
    let mut twice = wav_of(1, 1, 16_000, 16, 0);
    let format = twice[12..36].to_vec();
    twice.splice(12..12, format);
    assert_eq!(longest_millis(&twice), None);
}

#[test]
fn mpeg_audio_lasts_as_long_as_its_frames() {
    assert_eq!(longest_millis(&mp3_of(100)), Some(2_613));
    let tag = b"ID3\x04\0\0\0\0\0\x0a0123456789".to_vec();
    assert_eq!(longest_millis(&[tag, mp3_of(100)].concat()), Some(2_613));
    let mut old = mp3_of(10);
    old.extend(b"TAG");
    old.resize(old.len() + 125, 0);
    assert_eq!(longest_millis(&old), Some(262));
    // Something between the frames: nothing is believed but that a second has a thousand bytes.
    let odd = [mp3_of(1), vec![0; 583], mp3_of(1)].concat();
    assert_eq!(longest_millis(&odd), Some(odd.len() as u64));
}

#[test]
fn what_is_packed_has_at_least_the_bytes_of_the_lowest_bit_rate() {
    for head in [
        &b"OggS\0\0"[..],
        b"\x1a\x45\xdf\xa3",
        b"\0\0\0\x20ftypM4A ",
        b"\xff\xf1\x50\x80",
    ] {
        let mut file = head.to_vec();
        file.resize(7_500, 0);
        assert_eq!(longest_millis(&file), Some(10_000), "{head:?}");
    }
    // 48,000 samples a second, an hour of them in a few bytes of silence.
    let mut flac = b"fLaC\0\0\0\x22".to_vec();
    flac.extend([0; 10]);
    flac.extend([0x0b, 0xb8, 0x00, 0x00]);
    flac.extend((48_000_u32 * 3_600).to_be_bytes());
    flac.resize(100, 0);
    assert_eq!(longest_millis(&flac), Some(3_600_000));
}

#[test]
fn what_is_no_recording_has_no_length() {
    for file in [
        &b""[..],
        b"RIFF",
        b"\xff",
        b"hello",
        b"RIFF\0\0\0\0WAVE",
        b"fLaC",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
    ] {
        assert_eq!(longest_millis(file), None, "{file:?}");
    }
}
