//! Gradients summed by what has NCCL's functions: ranks are processes, the library is the stand-in for machines without devices.
//! The tests start this program again, once for each rank, as the ignored test `rank`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tastemaker_testkit::standin;
use tastemaker_torch::distributed::{Group, Settings};
use tastemaker_torch::nccl::{Gradients, Leaves, Library, owners};
use tastemaker_torch::recompute::segment;
use tch::{Device, Kind, Tensor};

const PLACE: &str = "TASTEMAKER_TEST_RANK";
const SILENT: (&str, &str) = ("TASTEMAKER_STANDIN", "silent");

fn settings(rank: usize, world_size: usize, port: u16) -> Settings {
    Settings {
        name: "test".to_owned(),
        rank,
        world_size,
        master_addr: "127.0.0.1".to_owned(),
        master_port: port,
        store_is_hosted: false,
        interface: Some("lo".to_owned()),
        timeout: Duration::from_secs(60),
        silence: Duration::from_secs(60),
        signal: Default::default(),
    }
}

/// Starts every rank on a task.
fn start(task: &str, world_size: usize, environment: &[(&str, &str)]) -> Vec<Child> {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let rank = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["rank", "--exact", "--ignored", "--nocapture"])
            .env(PLACE, format!("{task} {rank} {world_size} {port}"))
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..world_size).map(rank).collect()
}

fn said(output: impl BufRead) -> Vec<String> {
    output.lines().filter_map(|line| Some(line.unwrap().split_once("said: ")?.1.to_owned())).collect()
}

/// What all ranks of a task say.
fn all(task: &str, world_size: usize) -> Vec<Vec<String>> {
    let ranks = start(task, world_size, &[]);
    ranks
        .into_iter()
        .map(|mut rank| {
            let said = said(BufReader::new(rank.stdout.take().unwrap()));
            assert!(rank.wait().unwrap().success(), "{task} of {world_size}: {said:?}");
            said
        })
        .collect()
}

fn say(words: impl std::fmt::Display) {
    println!("said: {words}");
}

fn library() -> Library {
    Library::open(&standin::nccl()).unwrap()
}

#[test]
#[ignore = "one process of the tests below"]
fn rank() {
    tch::set_num_threads(1);
    let place = std::env::var(PLACE).unwrap();
    let [task, rank, world_size, port] = place.split(' ').collect::<Vec<_>>()[..] else { panic!("{place}") };
    let settings = settings(rank.parse().unwrap(), world_size.parse().unwrap(), port.parse().unwrap());
    let short = Settings { silence: Duration::from_secs(3), ..settings.clone() };
    match task {
        "sums" => sums(&Group::join(&settings).unwrap()),
        "sharded" => sharded(&Group::join(&settings).unwrap()),
        "differing" => differing(&Group::join(&settings).unwrap()),
        "endless" => endless(&Group::join(&short).unwrap()),
        "late" => late(&Group::join(&Settings { timeout: Duration::from_secs(4), ..settings }).unwrap()),
        _ => panic!("no task {task}"),
    }
}

/// Values of no pattern between -1 and 1.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 12.9898 + phase).sin().reshape(shape)
}

/// A network of leaves in different layouts, one of them without a part in the loss on odd ranks.
struct Net(Vec<Tensor>);

impl Net {
    fn new() -> Self {
        let leaf = |shape: &[i64], phase| values(shape, phase).set_requires_grad(true);
        let channels_last = channels_last(&values(&[4, 2, 3, 3], 0.3));
        Self(vec![
            leaf(&[40, 30], 0.1),
            leaf(&[30], 0.2),
            channels_last,
            leaf(&[30, 7], 0.4),
            leaf(&[], 0.5),
            leaf(&[11], 0.6),
            leaf(&[7, 7], 0.7),
        ])
    }

    fn leaves(&self) -> Vec<Tensor> {
        self.0.iter().map(Tensor::shallow_clone).collect()
    }

    /// One backward pass over data of a rank.
    fn backward(&self, phase: f64, uses_all: bool) {
        let [a, b, c, d, e, f, g] = &self.0[..] else { unreachable!() };
        let hidden = (values(&[5, 40], phase).matmul(a) + b).tanh();
        let image = values(&[1, 2, 6, 6], phase + 0.7).conv2d(c, None::<Tensor>, 1, 0, 1, 1);
        // Two parts that are recomputed share a leaf, whose gradient grows twice.
        let part = |input: &Tensor| {
            let shared = g.shallow_clone();
            segment(&[input.shallow_clone()], move |inputs| inputs[0].matmul(&shared).tanh())
        };
        let out = part(&part(&hidden.matmul(d)));
        let mut loss = out.square().mean(Kind::Float) + image.square().mean(Kind::Float) * e;
        if uses_all {
            loss += f.square().sum(Kind::Float) * phase;
        }
        loss.backward();
    }

    fn gradients(&self) -> Vec<Tensor> {
        let gradient = |leaf: &Tensor| match leaf.grad() {
            grad if grad.defined() => grad.copy(),
            _ => leaf.zeros_like().detach(),
        };
        self.0.iter().map(gradient).collect()
    }

    fn clear(&mut self) {
        self.0.iter_mut().for_each(Tensor::zero_grad);
    }
}

/// A leaf whose channels are innermost.
fn channels_last(leaf: &Tensor) -> Tensor {
    leaf.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]).detach().set_requires_grad(true)
}

/// Two micro-batches of a rank; the second is the last of its step.
fn step(net: &Net, number: usize, rank: usize, before_last: impl FnOnce()) {
    let phase = number as f64 + rank as f64 * 0.37;
    net.backward(phase, rank == 0);
    before_last();
    net.backward(phase + 0.11, rank == 0);
}

/// What the gradients of all ranks are in a step, each computed here.
fn each(number: usize, world_size: usize) -> Vec<Vec<Tensor>> {
    let of_rank = |rank| {
        let net = Net::new();
        step(&net, number, rank, || ());
        net.gradients()
    };
    (0..world_size).map(of_rank).collect()
}

/// In the order of ranks, as the stand-in adds.
fn in_order(each: &[Vec<Tensor>]) -> Vec<Tensor> {
    let sum = |leaf: usize| each[1..].iter().fold(each[0][leaf].copy(), |sum, other| sum + &other[leaf]);
    (0..each[0].len()).map(sum).collect()
}

fn sums(group: &Group) {
    for most in [None, Some(1), Some(300), Some(1300)] {
        let mut net = Net::new();
        let leaves = Leaves { tensors: net.leaves(), owners: None, most };
        let gradients = Gradients::begin(&library(), group, Device::Cpu, leaves).unwrap();
        for number in 0..4 {
            net.clear();
            step(&net, number, group.rank(), || gradients.next_is_last());
            let own = net.gradients();
            if most == Some(1) && number > 0 && group.world_size() > 1 {
                wait_until_sent(&net, &each(number, group.world_size())[group.rank()]);
            }
            gradients.sum().unwrap();
            let (found, each) = (net.gradients(), each(number, group.world_size()));
            for (leaf, (found, wanted)) in found.iter().zip(in_order(&each)).enumerate() {
                assert!(found.equal(&wanted), "leaf {leaf} of step {number}, {most:?}");
            }
            if most.is_none() {
                assert!(own.iter().zip(&each[group.rank()]).all(|(own, wanted)| own.equal(wanted)));
            }
            // Two numbers have one sum; Gloo's ring takes more of them in another order.
            let mut by_gloo = each[group.rank()].iter().map(Tensor::copy).collect::<Vec<_>>();
            group.all_reduce_sum(&mut by_gloo).unwrap();
            for (leaf, (found, wanted)) in found.iter().zip(&by_gloo).enumerate() {
                let is_same = if group.world_size() == 2 {
                    found.equal(wanted)
                } else {
                    found.allclose(wanted, 1e-5, 1e-6, false)
                };
                assert!(is_same, "leaf {leaf} of step {number}, by Gloo");
            }
        }
        gradients.leave().unwrap();
    }
}

/// The last leaf is summed without being asked for, when the backward pass is done with it.
fn wait_until_sent(net: &Net, own: &[Tensor]) {
    let (last, until) = (own.len() - 1, Instant::now() + Duration::from_secs(20));
    while net.gradients()[last].equal(&own[last]) {
        assert!(Instant::now() < until, "nothing leaves during the backward pass");
        sleep(Duration::from_millis(1));
    }
}

/// Each rank updates its own leaves by the summed gradients; all end with the leaves that one process ends with.
fn sharded(group: &Group) {
    let (rank, world_size) = (group.rank(), group.world_size());
    for most in [None, Some(64), Some(2000)] {
        let mut net = Net::new();
        let sizes: Vec<usize> = net.0.iter().map(Tensor::numel).collect();
        let owners = owners(&sizes, world_size);
        let leaves = Leaves { tensors: net.leaves(), owners: Some(owners.clone()), most };
        let gradients = Gradients::begin(&library(), group, Device::Cpu, leaves).unwrap();
        let mut wanted: Vec<Tensor> = Net::new().0.iter().map(|leaf| leaf.detach().copy()).collect();
        for number in 0..3 {
            net.clear();
            step(&net, number, rank, || gradients.next_is_last());
            gradients.sum().unwrap();
            for (leaf, owner) in owners.iter().enumerate() {
                let gradient = net.0[leaf].grad();
                assert_eq!(gradient.defined(), *owner == rank, "leaf {leaf} of step {number}");
                if *owner == rank {
                    let _ = tch::no_grad(|| net.0[leaf].shallow_clone().g_sub_(&(&gradient * 0.5)));
                }
            }
            let given = Net(wanted.iter().map(|leaf| leaf.copy().set_requires_grad(true)).collect());
            let of_rank = |rank| {
                let net =
                    Net(given.0.iter().map(|leaf| leaf.detach().copy().set_requires_grad(true)).collect());
                step(&net, number, rank, || ());
                net.gradients()
            };
            let sum = in_order(&(0..world_size).map(of_rank).collect::<Vec<_>>());
            wanted = wanted.iter().zip(&sum).map(|(leaf, sum)| leaf - sum * 0.5).collect();
            gradients.gather_parameters().unwrap();
            for (leaf, (found, wanted)) in net.0.iter().zip(&wanted).enumerate() {
                assert!(found.equal(wanted), "leaf {leaf} after step {number}, {most:?}");
            }
        }
        gradients.leave().unwrap();
    }
}

/// What NCCL would not notice is noticed.
fn differing(group: &Group) {
    let leaves = |n: i64, kind: Kind| Leaves {
        tensors: vec![Tensor::zeros([n], (kind, Device::Cpu)).set_requires_grad(true)],
        owners: None,
        most: None,
    };
    let differs = i64::from(group.rank() == 1);
    for leaves in
        [leaves(4 + differs, Kind::Float), leaves(4, if differs == 1 { Kind::Double } else { Kind::Float })]
    {
        let refused = Gradients::begin(&library(), group, Device::Cpu, leaves).unwrap_err().to_string();
        let words = "the parameters of rank 1 lie otherwise in memory than those of rank 0";
        assert!(refused.ends_with(words), "{refused}");
    }
    let gradients = Gradients::begin(&library(), group, Device::Cpu, leaves(4, Kind::Float)).unwrap();
    // Rank 1 asks for another thing: NCCL would wait for ever or mix them up.
    let found = if differs == 1 { gradients.gather_parameters() } else { gradients.sum() };
    if differs == 0 {
        say(found.unwrap_err());
        say(gradients.sum().unwrap_err());
    }
}

/// Sums until that fails.
fn endless(group: &Group) {
    let net = Net::new();
    let leaves = Leaves { tensors: net.leaves(), owners: None, most: Some(300) };
    let gradients = Gradients::begin(&library(), group, Device::Cpu, leaves).unwrap();
    for number in 0.. {
        step(&net, number, group.rank(), || gradients.next_is_last());
        if let Err(error) = gradients.sum() {
            say(error);
            say(gradients.sum().unwrap_err());
            // Who ends says so, which is not what is tested here.
            sleep(Duration::from_secs(6));
            return;
        }
        if number == 10 {
            say("running");
        }
    }
}

/// Rank 1 lives and does not come.
fn late(group: &Group) {
    let net = Net::new();
    let leaves = Leaves { tensors: net.leaves(), owners: None, most: None };
    let gradients = Gradients::begin(&library(), group, Device::Cpu, leaves).unwrap();
    if group.rank() == 1 {
        sleep(Duration::from_secs(60));
    }
    let began = Instant::now();
    say(gradients.sum().unwrap_err());
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn sums_during_the_backward_pass_are_those_of_gloo_and_of_one_process_whatever_travels_together() {
    for world_size in [1, 2, 4] {
        all("sums", world_size);
    }
}

#[test]
fn ranks_that_own_a_part_each_update_it_as_one_process_would() {
    for world_size in [2, 4] {
        all("sharded", world_size);
    }
}

#[test]
fn leaves_that_differ_between_ranks_are_refused_and_calls_that_differ_end() {
    let mut ranks = start("differing", 2, &[]);
    let said = said(BufReader::new(ranks[0].stdout.take().unwrap()));
    ranks.iter_mut().for_each(|rank| drop(rank.wait()));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("rank 0 of 2 failed while summing the gradients of 1 tensors"), "{said:?}");
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

/// Does something to the last rank of those that run, and gives what the others say.
fn after(world_size: usize, environment: &[(&str, &str)], signal: &str) -> Vec<Vec<String>> {
    let mut ranks = start("endless", world_size, environment);
    let mut outputs: Vec<_> = ranks.iter_mut().map(wait_until_running).collect();
    let (mut lost, _) = (ranks.pop().unwrap(), outputs.pop().unwrap());
    let since = Instant::now();
    let id = lost.id().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    let all = ranks
        .into_iter()
        .zip(outputs)
        .map(|(mut rank, output)| {
            let said = said(output);
            assert!(rank.wait().unwrap().success(), "{said:?}");
            said
        })
        .collect();
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
    let _ = lost.kill();
    lost.wait().unwrap();
    all
}

#[test]
fn a_rank_that_is_killed_or_stopped_ends_the_others_with_words_that_say_so() {
    let remote = "NCCL: remote process exited or there was a network error (";
    for (world_size, environment, signal, words) in [
        (2, &[][..], "-KILL", remote.to_owned()),
        (4, &[], "-KILL", remote.to_owned()),
        (2, &[SILENT], "-KILL", "rank 1 has not been heard of for 3s".to_owned()),
        (4, &[], "-STOP", "rank 3 has not been heard of for 3s".to_owned()),
    ] {
        for (rank, said) in after(world_size, environment, signal).iter().enumerate() {
            let beginning = format!(
                "rank {rank} of {world_size} failed while summing the gradients of 7 tensors over all ranks: {words}"
            );
            assert!(said[0].starts_with(&beginning), "{said:?}");
            assert!(said[0].ends_with("look at its output"), "{said:?}");
            assert_eq!(said.len(), 2, "what follows fails as well: {said:?}");
        }
    }
}

#[test]
fn a_rank_that_lives_and_does_not_come_is_waited_for_until_the_timeout() {
    let mut ranks = start("late", 2, &[]);
    let mut output = String::new();
    ranks[0].stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(ranks[0].wait().unwrap().success(), "{output}");
    let _ = ranks[1].kill();
    ranks[1].wait().unwrap();
    assert!(output.contains("another rank has not come within 4s"), "{output}");
}

#[test]
fn a_library_that_is_not_nccl_is_refused_by_what_it_lacks() {
    let loaded = std::fs::read_to_string("/proc/self/maps").unwrap();
    let names = loaded.lines().filter_map(|line| line.split_whitespace().nth(5));
    let c10 = names.collect::<BTreeSet<_>>().into_iter().find(|name| name.ends_with("libc10.so")).unwrap();
    let why = Library::open(c10.as_ref()).unwrap_err();
    assert!(why.ends_with("it has no function ncclGetVersion"), "{why}");
    let why = Library::open("absent.so".as_ref()).unwrap_err();
    assert_eq!(why, "absent.so cannot be opened");
    assert_eq!(library().version(), "2.28.9");
}

#[test]
fn a_program_needs_nothing_of_cuda_to_start() {
    let loaded = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(loaded.contains("/libtorch_cpu.so"));
    for library in ["/libtorch_cuda.so", "/libc10_cuda.so", "/libnccl.so.2"] {
        assert!(!loaded.contains(library), "{library} is loaded, and nobody asked for a device");
    }
}
