//! The real program on a tiny model and tiny pairs.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]
#![expect(dead_code, reason = "each test file uses its own part of this")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use image::{Rgb, RgbImage};
use tastemaker_testkit::{TINY_RESOLUTION, tiny_model, tiny_sdxl_model};
use tastemaker_torch::tensors::{self, Named};
use tempfile::TempDir;

/// Hides devices: what tests hold is what the CPU computes, on a machine with a GPU too.
pub const NO_DEVICE: [(&str, &str); 1] = [("CUDA_VISIBLE_DEVICES", "")];

/// A folder with `model/`, `pairs/` and whatever a test puts there; commands run in it.
pub struct Bench {
    folder: TempDir,
}

/// What a command did.
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Bench {
    /// With a model and six pairs under three captions.
    pub fn new() -> Self {
        let bench = Self::empty();
        tiny_model(&bench.path("model"));
        bench.pairs("pairs", 6);
        bench
    }

    /// The same with a model of the SDXL family.
    pub fn sdxl() -> Self {
        let bench = Self::empty();
        tiny_sdxl_model(&bench.path("model"));
        bench.pairs("pairs", 6);
        bench
    }

    /// With nothing.
    pub fn empty() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    /// Pairs in the JSONL layout. Winners are warm, losers cold; sizes and proportions differ.
    pub fn pairs(&self, name: &str, n: u32) {
        let folder = self.path(name);
        fs::create_dir_all(&folder).unwrap();
        let mut list = String::new();
        for i in 0..n {
            for (half, tint) in [("warm", [200, 120, 40]), ("cold", [40, 120, 200])] {
                image(i, tint).save(folder.join(format!("{half}{i}.png"))).unwrap();
            }
            let caption = ["a fox", "a red house", "rain over the sea"][i as usize % 3];
            writeln!(
                list,
                "{{\"image_0\": \"cold{i}.png\", \"image_1\": \"warm{i}.png\", \"prompt\": \"{caption}\", \
                 \"prefer_0\": false, \"prefer_1\": true}}"
            )
            .unwrap();
        }
        fs::write(folder.join("metadata.jsonl"), list).unwrap();
    }

    /// Runs `tastemaker` in the folder.
    pub fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, 1)
    }

    /// Runs it with this many threads.
    pub fn run_with(&self, args: &[&str], threads: usize) -> Said {
        self.run_in(args, &[("OMP_NUM_THREADS", &threads.to_string())])
    }

    /// Runs it with these variables and no others.
    pub fn run_in(&self, args: &[&str], variables: &[(&str, &str)]) -> Said {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tastemaker"))
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(NO_DEVICE)
            .envs(variables.iter().copied())
            .env("COLUMNS", "100")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs it where no file can grow beyond so many bytes, as on a disk that is full.
    pub fn run_on_a_full_disk(&self, args: &[impl AsRef<OsStr>], n_bytes: u64) -> Said {
        let limited = format!("ulimit -f {}; exec \"$0\" \"$@\"", n_bytes / 512);
        let Output { status, stdout, stderr } = Command::new("sh")
            .args(["-c", &limited, env!("CARGO_BIN_EXE_tastemaker")])
            .args(args)
            .current_dir(self.folder.path())
            .envs(NO_DEVICE)
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs it as one to whom permissions of files apply, though root run the tests: what root may do beyond them is taken away.
    #[cfg(target_os = "linux")]
    pub fn run_without_privileges(&self, args: &[&str]) -> Said {
        let unreadable = self.write("unreadable", "");
        fs::set_permissions(&unreadable, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        let program = env!("CARGO_BIN_EXE_tastemaker");
        let mut command = match fs::File::open(&unreadable) {
            Err(_) => Command::new(program),
            Ok(_) => {
                let mut command = Command::new("setpriv");
                command.args(["--bounding-set=-dac_override,-dac_read_search", program]);
                command
            }
        };
        let command = command.args(args).current_dir(self.folder.path()).env("OMP_NUM_THREADS", "1");
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Starts it, silent, to be killed or waited for.
    pub fn start(&self, args: &[impl AsRef<OsStr>]) -> Child {
        // Whoever started the tests may ignore an interruption.
        Command::new("/usr/bin/env")
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_tastemaker")])
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .envs(NO_DEVICE)
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs it, and fails with what it said unless it succeeds.
    #[track_caller]
    pub fn succeed(&self, args: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{}", said.stderr);
        said
    }

    /// Trains two steps of two pairs with `more` flags into `output`.
    pub fn train(&self, output: &str, more: &[&str]) -> Said {
        let line = format!(
            "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
             --held_out_fraction 0 --max_train_steps 2 --train_batch_size 2 --learning_rate 1e-3 --output_dir {output}"
        );
        let args: Vec<&str> = line.split_whitespace().chain(more.iter().copied()).collect();
        self.run(&args)
    }
}

/// Stripes of a tint, wider than high or higher than wide.
fn image(i: u32, tint: [u8; 3]) -> RgbImage {
    let (width, height) = if i.is_multiple_of(2) { (40, 32) } else { (32, 48) };
    RgbImage::from_fn(width, height, |x, y| {
        let light = 30 + (x * (3 + i) + y * 5) % 64;
        Rgb(tint.map(|channel| (u32::from(channel) * light / 94) as u8))
    })
}

/// What a user who made a mistake sees: exit code and message.
pub fn mistake(said: &Said) -> String {
    format!("exit code {}\n{}", said.code, said.stderr)
}

/// Every file below a folder, by its path in it.
pub fn files(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// The weights of a UNet or a VAE in its folder.
pub const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// A bench where the whole network was trained, and written in every layout.
pub fn tuned(more: &[&str]) -> Bench {
    let bench = Bench::new();
    let full = ["--method", "mapo", "--adapter_type", "full", "--learning_rate", "0.1"];
    let every = ["--output_layout", "original,unet,diffusers"];
    let said = bench.train("full", &[full.as_slice(), &every, more].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
    bench
}

/// A small image by a model.
pub fn generating(bench: &Bench, out: &str, more: &[&str]) -> Vec<u8> {
    let quick = ["sample", "--num_inference_steps", "2", "--prompt", "a fox", "--out", out];
    bench.succeed(&[quick.as_slice(), more].concat());
    image::open(bench.path(out).join("0000-0.png")).unwrap().into_rgb8().into_raw()
}

pub fn read(path: impl AsRef<Path>) -> Named {
    tensors::read(path.as_ref()).unwrap()
}

pub fn same(one: &Named, other: &Named) -> bool {
    one.keys().eq(other.keys()) && one.iter().all(|(name, tensor)| other[name].equal(tensor))
}

/// A folder and everything in it once more.
pub fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        fs::create_dir_all(to.join(&name).parent().unwrap()).unwrap();
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// A VAE whose images are brighter, in its own folder, in another model, and in files under original names.
pub fn bright_vae(bench: &Bench) {
    copy(&bench.path("model"), &bench.path("bright"));
    let path = bench.path("bright/vae").join(WEIGHTS);
    let mut vae = read(&path);
    let bias = &vae["decoder.conv_out.bias"] + 0.5;
    vae.insert("decoder.conv_out.bias".into(), bias);
    tensors::write(&path, &vae, &Default::default()).unwrap();
    copy(&bench.path("bright/vae"), &bench.path("vae"));
    bench.succeed(&["model", "convert", "bright", "bright.safetensors"]);
    let single = read(bench.path("bright.safetensors"));
    let prefix =
        single.keys().find_map(|name| name.strip_suffix("decoder.conv_out.bias")).unwrap().to_owned();
    let alone = single.into_iter().filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.to_owned(), t)));
    let alone = alone.collect();
    tensors::write(&bench.path("alone.safetensors"), &alone, &Default::default()).unwrap();
}

/// Puts a folder of the bench into a cache, as if it had been fetched.
pub fn cached(bench: &Bench, folder: &str, name: &str, revision: &str) {
    let digit = if revision == "main" { "a" } else { "b" };
    let commit = digit.repeat(40);
    let repo = format!("cache/models--{}", name.replace('/', "--"));
    copy(&bench.path(folder), &bench.path(&format!("{repo}/snapshots/{commit}")));
    bench.write(&format!("{repo}/refs/{revision}"), commit);
}
