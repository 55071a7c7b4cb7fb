//! What is drawn on a terminal while work goes on: on a real one, of few columns.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use support::Bench;

/// Everything that the program writes to a terminal of this many columns.
fn drawn(bench: &Bench, columns: u16, args: &[&str]) -> String {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let screen = openpt(flags).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let terminal = ioctl_tiocgptpeer(&screen, flags).unwrap();
    tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let out = |terminal: &OwnedFd| Stdio::from(terminal.try_clone().unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_tastemaker"))
        .args(args)
        .current_dir(bench.path(""))
        .env_clear()
        .envs(support::NO_DEVICE)
        .envs([("TERM", "xterm"), ("OMP_NUM_THREADS", "1")])
        .stdin(Stdio::null())
        .stdout(out(&terminal))
        .stderr(out(&terminal))
        .spawn()
        .unwrap();
    drop(terminal);
    let (mut screen, mut bytes) = (File::from(screen), Vec::new());
    let mut part = [0; 4096];
    // The end of a terminal that nobody writes to is an error.
    while let Ok(n @ 1..) = screen.read(&mut part) {
        bytes.extend_from_slice(&part[..n]);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

/// Lines that were drawn to be drawn over: with how much of how much is done.
fn progress(text: &str) -> Vec<String> {
    let plain = console::strip_ansi_codes(text).into_owned();
    let lines = plain.split(['\r', '\n']).map(|line| line.trim_end().to_owned());
    let counts = |line: &str| {
        let words = line.split([' ', ',']);
        words.filter_map(|word| word.split_once('/')).any(|(done, of)| {
            [done, of].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    lines.filter(|line| counts(line) || line.contains('█') || line.contains('░')).collect()
}

#[test]
fn progress_fits_a_narrow_terminal_and_no_rate_is_absurd() {
    let bench = Bench::new();
    bench.pairs("many", 60);
    bench.write("prompts.txt", "fox\nred apple\n");
    let sample =
        "sample --model model --prompts prompts.txt --num_images_per_prompt 20 --num_inference_steps 4 --out";
    let compare = "compare model other=model --scorer nearest-art --prompts prompts.txt --num_images_per_prompt 8 \
                   --num_inference_steps 4 --out";
    let train = "train --pretrained_model_name_or_path model --train_data_dir many --method diffusion-dpo --resolution 32 \
                 --max_train_steps 60 --train_batch_size 2 --no_cache --held_out_fraction 0 --output_dir";
    let check = "data check many --resolution 32 --output_dir";
    for columns in [80, 40] {
        for (command, doing) in
            [(sample, "generating"), (compare, "generating"), (train, "loss"), (check, "checking")]
        {
            let out = format!("{}-{columns}", command.split(' ').next().unwrap());
            let args: Vec<&str> = command.split_whitespace().chain([out.as_str()]).collect();
            let text = drawn(&bench, columns, &args);
            let lines = progress(&text);
            let of_work: Vec<&String> = lines.iter().filter(|line| line.contains(doing)).collect();
            assert!(of_work.len() > 1, "{command}: {text}");
            for line in lines {
                let width = console::measure_text_width(&line);
                assert!(width < usize::from(columns), "{command}: {width} of {columns} columns: {line:?}");
                let words: Vec<&str> = line.split(' ').collect();
                for (number, unit) in words.iter().zip(words.iter().skip(1)) {
                    let Ok(number) = number.parse::<f64>() else { continue };
                    let unit = unit.trim_end_matches(',');
                    if unit.ends_with("/s") || unit.starts_with("s/") {
                        assert!(number > 0.0 && number < 5000.0, "{command}: {line:?}");
                    }
                }
            }
        }
    }
}
