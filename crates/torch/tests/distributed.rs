//! Groups of processes: the tests start this program again, once for each rank, as the ignored test `rank`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tastemaker_torch::distributed::{Group, Settings};
use tch::{Device, Kind, Tensor};

const PLACE: &str = "TASTEMAKER_TEST_RANK";

fn settings(name: &str, rank: usize, world_size: usize, port: u16) -> Settings {
    Settings {
        name: name.to_owned(),
        rank,
        world_size,
        master_addr: "127.0.0.1".to_owned(),
        master_port: port,
        store_is_hosted: false,
        interface: None,
        timeout: Duration::from_secs(60),
        silence: Duration::from_secs(60),
        signal: Default::default(),
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Starts one rank on a task.
fn start(task: &str, rank: usize, world_size: usize, port: u16) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["rank", "--exact", "--ignored", "--nocapture"])
        .env(PLACE, format!("{task} {rank} {world_size} {port}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What all ranks of a task say.
fn all(task: &str, world_size: usize) -> Vec<Vec<String>> {
    let port = free_port();
    let ranks: Vec<Child> = (0..world_size).map(|rank| start(task, rank, world_size, port)).collect();
    ranks
        .into_iter()
        .map(|mut rank| {
            let output = rank.stdout.take().unwrap();
            let said = said(BufReader::new(output));
            assert!(rank.wait().unwrap().success(), "{task} of {world_size}: {said:?}");
            said
        })
        .collect()
}

/// The lines that a rank means for its test.
fn said(output: impl BufRead) -> Vec<String> {
    output.lines().filter_map(|line| Some(line.unwrap().split_once("said: ")?.1.to_owned())).collect()
}

fn say(words: impl std::fmt::Display) {
    println!("said: {words}");
}

#[test]
#[ignore = "one process of the tests below"]
fn rank() {
    tch::set_num_threads(1); // many ranks share few cores here
    let place = std::env::var(PLACE).unwrap();
    let [task, rank, world_size, port] = place.split(' ').collect::<Vec<_>>()[..] else { panic!("{place}") };
    let settings =
        settings("test", rank.parse().unwrap(), world_size.parse().unwrap(), port.parse().unwrap());
    match task {
        "sum" => sum(&Group::join(&settings).unwrap()),
        "spread" => spread(&Group::join(&settings).unwrap()),
        "hosted" => spread(&Group::join(&Settings { store_is_hosted: true, ..settings }).unwrap()),
        "endless" => endless(&Group::join(&settings).unwrap()),
        "hang" => hang(&Group::join(&Settings { timeout: Duration::from_secs(8), ..settings }).unwrap()),
        "patient" => {
            let second = Duration::from_secs(1);
            patient(
                &Group::join(&Settings { timeout: 2 * second, silence: 2 * second, ..settings }).unwrap(),
            );
        }
        "stopped" => {
            stopped(&Group::join(&Settings { silence: Duration::from_secs(3), ..settings }).unwrap())
        }
        _ => panic!("no task {task}"),
    }
}

/// Values of no pattern between -1 and 1.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 12.9898 + phase).sin().reshape(shape)
}

/// Small tensors and one above the size of a bucket, in both types, contiguous and not, leaves that learn among them.
fn gradients(rank: usize) -> Vec<Tensor> {
    let phase = rank as f64;
    vec![
        values(&[1000], phase),
        values(&[4, 6, 3, 5], phase + 0.1).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
        values(&[7, 9], phase + 0.2).to_kind(Kind::Double),
        values(&[7, 9], phase + 0.3).transpose(0, 1),
        values(&[5, 1_000_001], phase + 0.4),
        values(&[], phase + 0.5),
        values(&[3], phase + 0.6).set_requires_grad(true),
    ]
}

fn sum(group: &Group) {
    let mut found = gradients(group.rank());
    group.all_reduce_sum(&mut found).unwrap();
    let all: Vec<Vec<Tensor>> = (0..group.world_size()).map(gradients).collect();
    for (i, found) in found.iter().enumerate() {
        let wanted: Tensor = all[1..].iter().fold(all[0][i].detach().copy(), |sum, other| sum + &other[i]);
        let found = found.detach();
        if group.world_size() == 2 {
            assert!(found.equal(&wanted), "tensor {i}");
        } else {
            assert!(found.allclose(&wanted, 1e-6, 1e-6, false), "tensor {i}");
        }
        let bits = found.to_kind(Kind::Double).reshape([-1]).view_dtype(Kind::Int64);
        let weights = Tensor::arange(bits.numel() as i64, (Kind::Int64, Device::Cpu)) * 2 + 1;
        say((bits * weights).sum(Kind::Int64).int64_value(&[]));
    }
    group.all_reduce_sum(&mut []).unwrap();
}

fn spread(group: &Group) {
    let (rank, n) = (group.rank(), group.world_size());
    for root in 0..n {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Uint8, Kind::Int64] {
            let of = |rank: usize| (values(&[5, 4], rank as f64) * 50.0 + 60.0).to_kind(kind).transpose(0, 1);
            let mut tensor = of(rank);
            group.broadcast(&mut tensor, root).unwrap();
            assert!(tensor.equal(&of(root)), "{kind:?} of {root}");
        }
    }
    let gathered = group.all_gather(&values(&[3, 2], rank as f64).transpose(0, 1)).unwrap();
    assert_eq!(gathered.len(), n);
    for (i, tensor) in gathered.iter().enumerate() {
        assert!(tensor.equal(&values(&[3, 2], i as f64).transpose(0, 1)));
    }
    let bytes = |rank: usize| vec![rank as u8 + 1; rank * 3];
    assert_eq!(group.all_gather_bytes(&bytes(rank)).unwrap(), (0..n).map(bytes).collect::<Vec<_>>());
    assert!(group.all_gather_bytes(&[]).unwrap().iter().all(Vec::is_empty));

    let refused = group.broadcast(&mut values(&[2], 0.0), n).unwrap_err().to_string();
    assert!(refused.ends_with("there is no such rank"), "{refused}");
    let narrow = values(&[2], 0.0).to_kind(Kind::BFloat16);
    let refused = group.all_reduce_sum(&mut [narrow]).unwrap_err().to_string();
    assert!(refused.ends_with("a tensor is BFloat16; wanted one of [Float, Double]"), "{refused}");
    group.barrier().unwrap();
}

/// Adds up until that fails.
fn endless(group: &Group) {
    // Two types are two buckets: one is under way while the other fails.
    let mut tensors = [values(&[100_000], 0.0), values(&[100_000], 1.0).to_kind(Kind::Double)];
    for step in 0.. {
        if let Err(error) = group.all_reduce_sum(&mut tensors) {
            say(error);
            say(group.barrier().unwrap_err());
            return;
        }
        if step == 10 {
            say("running");
        }
    }
}

/// Rank 1 is busy for longer than any limit, and lives.
fn patient(group: &Group) {
    group.limit(false);
    if group.rank() == 1 {
        std::thread::sleep(Duration::from_secs(6));
    }
    let gathered = group.all_gather_bytes(&[7]).unwrap();
    assert_eq!(gathered, [[7], [7]]);
    group.barrier().unwrap();
    group.limit(true);
    if group.rank() == 1 {
        std::thread::sleep(Duration::from_secs(6));
    }
    say(group.barrier().unwrap_err());
}

/// Waits without limit for one that is stopped.
fn stopped(group: &Group) {
    group.limit(false);
    group.barrier().unwrap();
    say("running");
    std::thread::sleep(Duration::from_secs(1));
    if group.rank() == 2 {
        std::thread::sleep(Duration::from_secs(60));
    }
    say(group.barrier().unwrap_err());
    say(group.barrier().unwrap_err());
}

/// Rank 1 does not come to the barrier.
fn hang(group: &Group) {
    if group.rank() == 1 {
        std::thread::sleep(Duration::from_secs(60));
    }
    say(group.barrier().unwrap_err());
}

#[test]
fn sums_are_the_same_bits_on_every_rank_and_in_every_run() {
    for world_size in [2, 3] {
        let found = all("sum", world_size);
        assert_eq!(found[0].len(), gradients(0).len());
        assert!(found.iter().all(|said| *said == found[0]), "{found:?}");
        assert_eq!(all("sum", world_size), found);
    }
}

#[test]
fn tensors_and_bytes_are_spread_and_gathered() {
    for world_size in [1, 2, 3] {
        all("spread", world_size);
    }
}

#[test]
fn ranks_meet_at_a_store_that_a_launcher_runs() {
    let port = free_port();
    let _launcher = Group::join(&settings("launcher", 0, 1, port)).unwrap();
    let ranks: Vec<Child> = (0..2).map(|rank| start("hosted", rank, 2, port)).collect();
    for mut rank in ranks {
        assert!(rank.wait().unwrap().success());
    }
}

/// Reads until the rank says that it is running.
fn wait_until_running(rank: &mut Child) -> BufReader<ChildStdout> {
    let mut output = BufReader::new(rank.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("said: running") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the rank ended before it ran");
    }
    output
}

#[test]
fn a_killed_rank_ends_all_others_with_words_that_say_so() {
    for world_size in [2, 3] {
        let port = free_port();
        let mut ranks: Vec<Child> =
            (0..world_size).map(|rank| start("endless", rank, world_size, port)).collect();
        let mut outputs: Vec<_> = ranks.iter_mut().map(wait_until_running).collect();
        let (mut killed, _) = (ranks.pop().unwrap(), outputs.pop().unwrap());
        let since = Instant::now();
        killed.kill().unwrap();
        killed.wait().unwrap();
        for (rank, (mut child, output)) in ranks.into_iter().zip(outputs).enumerate() {
            let said = said(output);
            assert!(child.wait().unwrap().success());
            let beginning =
                format!("rank {rank} of {world_size} failed while summing 2 tensors over all ranks: ");
            assert!(said[0].starts_with(&beginning), "{said:?}");
            assert!(said[0].contains("another rank may have ended"), "{said:?}");
            assert!(said[1].contains("the group has ended"), "{said:?}");
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    }
}

#[test]
fn a_rank_that_hangs_is_noticed_after_the_timeout() {
    let port = free_port();
    let mut ranks: Vec<Child> = (0..2).map(|rank| start("hang", rank, 2, port)).collect();
    let since = Instant::now();
    let mut output = String::new();
    ranks[0].stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(ranks[0].wait().unwrap().success());
    ranks[1].kill().unwrap();
    ranks[1].wait().unwrap();
    assert!(output.contains("rank 0 of 2 failed while waiting for all ranks"), "{output}");
    assert!(since.elapsed() < Duration::from_secs(40));
}

#[test]
fn a_rank_that_lives_is_waited_for_without_limit_where_there_is_none() {
    let found = all("patient", 2);
    assert!(found[0][0].contains("rank 0 of 2 failed while waiting for all ranks"), "{found:?}");
}

#[test]
fn a_stopped_rank_is_missed_by_all_others_also_where_there_is_no_limit_and_also_the_one_with_the_store() {
    for (lost, words) in
        [(1, "rank 1 has not been heard of for 3s"), (0, "the store of rank 0 or of the launcher")]
    {
        let port = free_port();
        let mut ranks: Vec<Child> = (0..3).map(|rank| start("stopped", rank, 3, port)).collect();
        let mut outputs: Vec<_> = ranks.iter_mut().map(wait_until_running).collect();
        let since = Instant::now();
        let id = ranks[lost].id().to_string();
        assert!(Command::new("kill").args(["-STOP", &id]).status().unwrap().success());
        // Rank 2 does not wait for anyone when that happens.
        let waits = 1 - lost;
        let said = said(&mut outputs[waits]);
        let beginning = format!("rank {waits} of 3 failed while waiting for all ranks: {words}");
        assert!(said[0].starts_with(&beginning), "{said:?}");
        assert!(said[1].contains("failed while waiting for all ranks"), "{said:?}");
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
        for rank in &mut ranks {
            let _ = rank.kill();
            rank.wait().unwrap();
        }
    }
}

#[test]
fn a_rank_that_comes_alone_gives_up_after_the_timeout() {
    let port = free_port();
    for (rank, store) in [(0, "hosts"), (1, "seeks")] {
        let alone = Settings { timeout: Duration::from_secs(1), ..settings("test", rank, 2, port) };
        let since = Instant::now();
        let error = Group::join(&alone).unwrap_err().to_string();
        let beginning = format!("rank {rank} of 2 failed while joining the others at 127.0.0.1:{port}: ");
        assert!(error.starts_with(&beginning), "{store}: {error}");
        assert!(error.contains("another rank may have ended"), "{store}: {error}");
        assert!(since.elapsed() < Duration::from_secs(20), "{store}: {error}");
    }
}

#[test]
fn a_rank_beyond_the_last_is_refused() {
    let error = Group::join(&settings("test", 2, 2, 1)).unwrap_err().to_string();
    assert!(error.contains("ranks are counted from 0"), "{error}");
}
