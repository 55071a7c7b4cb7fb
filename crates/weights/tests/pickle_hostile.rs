//! What a stranger's pickle or archive may try, and the answer to each.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files should stop")]

mod zip;

use std::collections::BTreeSet;
use std::sync::Arc;

use tastemaker_store::StoreError;
use tastemaker_weights::pickle::{LegacyFile, MAX_ITEMS, MAX_MEMO, MAX_OBJECTS, MAX_PICKLE_BYTES, MAX_STACK};
use zip::{Entry, entries, entry, zip};

fn open(file: Vec<u8>) -> Result<LegacyFile, StoreError> {
    LegacyFile::over("bad.bin", Arc::new(file))
}

fn complaint(file: Vec<u8>) -> String {
    let error = open(file).unwrap_err();
    assert!(matches!(error, StoreError::Malformed { .. }), "{error:?}");
    error.to_string()
}

/// The complaint about this pickle in a sound archive.
fn refusal(pickle: &[u8]) -> String {
    complaint(zip(&entries(pickle)))
}

/// Text as bytes, each character one byte.
fn latin(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap()).collect()
}

/// A pickle of a dict of one tensor `a`, from the pieces that may be wrong about it.
fn tensor(class: &str, n: &str, offset: &str, shape: &str, stride: &str) -> Vec<u8> {
    latin(&format!(
        "\u{80}\u{2}}}X\u{1}\0\0\0actorch._utils\n_rebuild_tensor_v2\n((X\u{7}\0\0\0storagec{class}\n\
         X\u{1}\0\0\00X\u{3}\0\0\0cpu{n}tQ{offset}{shape}{stride}\u{89}ccollections\nOrderedDict\n)RtRs."
    ))
}

const FLOATS: &str = "torch\nFloatStorage";

fn good() -> Vec<u8> {
    tensor(FLOATS, "K\x04", "K\0", "(K\x02K\x02t", "(K\x02K\x01t")
}

#[test]
fn the_smallest_sound_file_opens() {
    let file = open(zip(&entries(&good()))).unwrap();
    let tensor = file.get("a").unwrap();
    assert_eq!((tensor.shape, tensor.bytes), (&[2, 2][..], &[7; 16][..]));
}

/// The opcodes that a state dict needs; of the others, PROTO opens the file and NEWOBJ is a call.
const KNOWN: &[u8] = b"\x95.(N\x88\x89JKM\x8aGX\x8c}])t\x85\x86\x87qr\x94hjc\x93RbQsuae";

#[test]
fn every_other_opcode_is_refused() {
    let known: BTreeSet<u8> = KNOWN.iter().copied().collect();
    for opcode in 0..=255 {
        // Operands enough for any opcode are around it.
        let mut pickle = b"\x80\x02(}}".to_vec();
        pickle.push(opcode);
        pickle.extend([0; 16]);
        let by_name = format!("found opcode {opcode:#04x} ");
        let message = refusal(&pickle);
        let refused = match opcode {
            0x80 => message.contains("found a second opcode PROTO at byte 5"),
            0x81 => message.contains("found a call of something that is not a function at byte 5"),
            _ => message.contains(&by_name) && message.contains("at byte 5 "),
        };
        assert_eq!(refused, !known.contains(&opcode), "{opcode:#04x}: {message}");
    }
}

#[test]
fn an_opcode_is_refused_by_its_name() {
    for (opcode, name) in [(b'i', "INST"), (b'o', "OBJ"), (0x92, "NEWOBJ_EX"), (b'0', "POP"), (0x82, "EXT1")]
    {
        assert!(refusal(&[0x80, 2, opcode]).contains(&format!("{name} at byte 2")));
    }
}

#[test]
fn no_call_but_those_of_weights_is_answered() {
    for (call, name) in [
        ("cposix\nsystem\nX\x02\0\0\0ls\u{85}R", "posix.system"),
        ("cbuiltins\neval\n)R", "builtins.eval"),
        ("ctorch\nload\n)R", "torch.load"),
        ("ctorch\nFloatStorage\n)R", "torch.FloatStorage"),
        ("ca.b\nC\n)\u{81}", "a.b.C"),
        ("ca.b\nC\n}b", "a.b.C"),
        ("\u{8c}\u{2}os\u{8c}\u{6}system\u{93})R", "os.system"),
    ] {
        let pickle = latin(&format!("\u{80}\u{4}{call}"));
        let message = refusal(&pickle);
        assert!(message.contains(&format!("a call of `{name}`")), "{message}");
    }
}

#[test]
fn a_call_of_a_value_is_refused() {
    for call in [&b"\x80\x02N)R"[..], b"\x80\x02})R", b"\x80\x02])\x81"] {
        assert!(refusal(call).contains("a call of something that is not a function"));
    }
}

#[test]
fn a_name_cannot_break_out_of_the_message() {
    let message = refusal(b"\x80\x02cos\x1b[31m\r\nsystem\n)R");
    assert!(message.contains(r"`os\u{1b}[31m\r.system`"), "{message}");
    let long = [b"\x80\x02cos\n".as_slice(), &[b'x'; 100_000], b"\n)R"].concat();
    assert!(refusal(&long).len() < 600);
}

#[test]
fn known_calls_take_only_what_torch_writes() {
    for pickle in [
        tensor("torch\nQInt8Storage", "K\x04", "K\0", "(t", "(t"),
        tensor("os\nFloatStorage", "K\x04", "K\0", "(t", "(t"),
        tensor(FLOATS, "N", "K\0", "(t", "(t"),
        tensor(FLOATS, "K\x04", "N", "(t", "(t"),
        tensor(FLOATS, "K\x04", "K\0", "N", "(t"),
        tensor(FLOATS, "K\x04", "K\0", "(Nt", "(t"),
        tensor(FLOATS, "K\x04", "K\0", "(K\x01K\x01t", "(K\x01t"),
        tensor(FLOATS, "K\x04", "K\0", &format!("({}t", "K\x01".repeat(17)), "(t"),
        tensor(FLOATS, "K\x05", "K\0", "(K\x04t", "(K\x01t"),
        tensor(FLOATS, "K\x03", "K\0", "(K\x03t", "(K\x01t"),
        b"\x80\x02ccollections\nOrderedDict\n]\x85R.".to_vec(),
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nN\x88}\x87R.".to_vec(),
        b"\x80\x02}}b.".to_vec(),
        b"\x80\x02NQ.".to_vec(),
        b"\x80\x02]Q.".to_vec(),
    ] {
        refusal(&pickle);
    }
}

#[test]
fn a_tensor_outside_its_storage_is_refused() {
    for (offset, shape) in [("K\x01", "(K\x04t"), ("K\0", "(K\x05t"), ("K\x05", "(K\0t")] {
        let message = refusal(&tensor(FLOATS, "K\x04", offset, shape, "(K\x01t"));
        assert!(message.contains("tensor `a` at bytes"), "{message}");
    }
    // LONG1 of eight bytes, and a product that only fits without the element size.
    let huge = "\u{8a}\u{8}\0\0\0\0\0\0\0\u{40}";
    for pickle in [
        tensor(FLOATS, "K\x04", "K\0", &format!("({huge}{huge}t"), "(K\x01K\x01t"),
        tensor(FLOATS, "K\x04", "K\0", &format!("({huge}t"), "(K\x01t"),
        tensor(FLOATS, "K\x04", huge, "(K\x01t", "(K\x01t"),
        tensor(FLOATS, huge, "K\0", "(K\x01t", "(K\x01t"),
    ] {
        refusal(&pickle);
    }
}

#[test]
fn only_row_major_tensors_are_read() {
    for (shape, stride, sound) in [
        ("(K\x02K\x02t", "(K\x02K\x01t", true),
        ("(K\x02K\x02t", "(K\x01K\x02t", false),
        ("(K\x02t", "(K\x02t", false),
        ("(K\x04t", "(K\0t", false),
        ("(K\x01K\x04t", "(K\x09K\x01t", true),
        ("(K\0K\x04t", "(K\x09K\x09t", true),
        ("(t", "(t", true),
    ] {
        let opened = open(zip(&entries(&tensor(FLOATS, "K\x04", "K\0", shape, stride))));
        assert_eq!(opened.is_ok(), sound, "{shape:?} {stride:?}: {opened:?}");
    }
}

#[test]
fn what_is_not_a_state_dict_is_refused() {
    for (pickle, found) in [
        (&b"\x80\x02]."[..], "something else than a dict"),
        (b"\x80\x02}K\x01Ns.", "a key that is not text"),
        (b"\x80\x02}X\x05\0\0\0epochK\x03s.", "entry `epoch`"),
        (b"\x80\x02}X\x0a\0\0\0state_dictNs.", "an entry `state_dict`"),
        (b"\x80\x02}X\x0a\0\0\0state_dict}sX\x0a\0\0\0state_dict}s.", "two entries named `state_dict`"),
    ] {
        let message = refusal(pickle);
        assert!(message.contains(found), "{message}");
    }
}

#[test]
fn a_name_used_twice_is_refused() {
    let pickle = good();
    let value = &pickle[9..pickle.len() - 2];
    let twice = [&pickle[..pickle.len() - 1], b"X\x01\0\0\0a", value, b"s."].concat();
    assert!(refusal(&twice).contains("two tensors named `a`"));
}

#[test]
fn a_machine_out_of_step_is_refused() {
    for pickle in [
        &b""[..],
        b"\x80",
        b"\x80\x01}.",
        b"\x80\x06}.",
        b"}.",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02}",
        b"\x80\x02}}.",
        b"\x80\x02(}.",
        b"\x80\x02}.N",
        b"\x80\x02}(.",
        b"\x80\x02t.",
        b"\x80\x02(t(\x85.",
        b"\x80\x02N(s.",
        b"\x80\x02}Ns.",
        b"\x80\x02}(Nu.",
        b"\x80\x02}(NNe.",
        b"\x80\x02]NNs.",
        b"\x80\x02NNNs.",
        b"\x80\x02q\0.",
        b"\x80\x02\x94.",
        b"\x80\x02h\0.",
        b"\x80\x02}r\xff\xff\xff\xffj\0\0\0\0.",
        b"\x80\x02NN\x93.",
        b"\x80\x02X\xff\xff\xff\xffa.",
        b"\x80\x02X\x01\0\0\0\xff.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}.",
        b"\x80\x02ca\n",
        b"\x80\x02c\xff\n\n.",
        b"\x80\x02\x80\x02}.",
    ] {
        refusal(pickle);
    }
}

#[test]
fn values_may_hold_themselves() {
    assert!(refusal(b"\x80\x02]q\0h\0a.").contains("something else than a dict"));
    assert!(refusal(b"\x80\x02}q\0X\x01\0\0\0ah\0s.").contains("entry `a`, which is not a tensor"));
    let inner = refusal(b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.");
    assert!(inner.contains("entry `state_dict`, which is not a tensor"), "{inner}");
}

#[test]
fn each_limit_is_kept() {
    let pickle = |body: Vec<u8>| [b"\x80\x02".as_slice(), &body].concat();
    for (body, what) in [
        (b"N".repeat(MAX_STACK + 1), "values on the stack"),
        (b"(".repeat(MAX_STACK + 1), "open marks"),
        ([b"N".to_vec(), b"\x94".repeat(MAX_MEMO + 1)].concat(), "remembered values"),
        ([b"N".to_vec(), b"\x85".repeat(MAX_OBJECTS + 1)].concat(), "compound values"),
        ([b"]".to_vec(), b"Na".repeat(MAX_ITEMS + 1)].concat(), "items in containers"),
    ] {
        let message = refusal(&pickle(body));
        assert!(message.contains(&format!("more {what} than weights need")), "{message}");
    }
    let message = refusal(&vec![b'N'; MAX_PICKLE_BYTES + 1]);
    assert!(message.contains("a data.pkl of"), "{message}");
}

#[test]
fn a_sound_archive_may_come_from_any_torch_since_1_6() {
    let mut entries = entries(&good());
    entries.extend([entry("w/byteorder", b"little"), entry("w/.data/serialization_id", b"1")]);
    open(zip(&entries)).unwrap();
}

#[test]
fn an_archive_that_is_not_torchs_is_refused() {
    let sound = entries(&good());
    let with = |change: &dyn Fn(&mut Vec<Entry>)| {
        let mut entries = sound.clone();
        change(&mut entries);
        complaint(zip(&entries))
    };
    type Change<'a> = &'a dyn Fn(&mut Vec<Entry>);
    let changes: [(Change<'_>, &str); 18] = [
        (&|e| e.clear(), "neither a zip archive"),
        (&|e| drop(e.remove(0)), "no data.pkl"),
        (&|e| drop(e.remove(1)), "no version"),
        (&|e| drop(e.remove(2)), "tensor `a` in storage `0`"),
        (&|e| e[1].data = b"three".to_vec(), "no version"),
        (&|e| e.push(entry("w/byteorder", b"big")), "byte order `big`"),
        (&|e| e.push(entry("w/constants.pkl", b"")), "TorchScript"),
        (&|e| e.push(entry("v/extra", b"")), "`v/extra`"),
        (&|e| e.push(e[2].clone()), "two archive entries `w/data/0`"),
        (&|e| e.push(entry("w/../x", b"")), "`w/../x`"),
        (&|e| e.push(entry("/etc/passwd", b"")), "`/etc/passwd`"),
        (&|e| e.push(entry("x", b"")), "`x`"),
        (&|e| e.push(entry("w/a\\b", b"")), "folder/file"),
        (&|e| e[2].flags = 1, "encrypted"),
        (&|e| e[2].method = 8, "compressed"),
        (&|e| e[2].longer = 1, "outside the file"),
        (&|e| e[2].local_name = Some("w/data/1".into()), "another header"),
        (&|e| e[1].longer = 4, "overlap"),
    ];
    for (change, found) in changes {
        let message = with(change);
        assert!(message.contains(found), "wanted {found}: {message}");
    }
}

#[test]
fn nothing_may_precede_or_follow_the_archive() {
    let sound = zip(&entries(&good()));
    complaint([sound.as_slice(), b"x"].concat());
    complaint([b"x", sound.as_slice()].concat());
    let mut counted = sound.clone();
    let end = sound.len();
    counted[end - 14..end - 10].copy_from_slice(&[2, 0, 2, 0]);
    complaint(counted);
    let mut many = sound;
    many[end - 14..end - 10].copy_from_slice(&[0xff; 4]);
    complaint(many);
}

#[test]
fn an_archive_of_wide_sizes_opens() {
    let sound = zip(&entries(&good()));
    let (body, end) = sound.split_at(sound.len() - 22);
    let at = body.len() as u64;
    let [size, start] = [12, 16].map(|field| u32::from_le_bytes(*end[field..].first_chunk().unwrap()));
    let mut wide = body.to_vec();
    wide.extend(b"PK\x06\x06");
    wide.extend(44u64.to_le_bytes());
    wide.extend([0; 12]);
    wide.extend([3, 3, size.into(), start.into()].map(u64::to_le_bytes).concat());
    wide.extend(b"PK\x06\x07\0\0\0\0");
    wide.extend(at.to_le_bytes());
    wide.extend(1u32.to_le_bytes());
    wide.extend(b"PK\x05\x06\0\0\0\0");
    wide.extend([0xff; 12]);
    wide.extend([0; 2]);
    assert_eq!(open(wide.clone()).unwrap().tensors().count(), 1);

    let n = at as usize + 32;
    let mut claims = wide;
    claims[n - 8..n + 8].fill(0xff);
    complaint(claims);
}
