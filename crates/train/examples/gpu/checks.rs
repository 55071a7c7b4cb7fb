//! Operators on the device against the same on the CPU, in f32.

use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_torch::norm::group_norm;
use tastemaker_torch::optimizers::{AdamWStep, Codes, Moments8bit, adamw_8bit_anywhere, fused_adamw};
use tastemaker_torch::products::{attention, conv2d, linear};
use tastemaker_torch::recompute::segment;
use tch::{Device, Kind, Tensor};

use crate::{Setting, check, worse};

/// An operator of some operands.
type Operator<'a> = &'a dyn Fn(&[Tensor]) -> Tensor;

const KINDS: [(Kind, &str, f64); 3] =
    [(Kind::Float, "f32", 1e-5), (Kind::BFloat16, "bf16", 1.5e-2), (Kind::Half, "fp16", 2e-3)];

pub fn run(setting: &Setting) {
    let (device, n) = (setting.device, if setting.smoke { 16 } else { 1024 });
    for (kind, precision, limit) in KINDS {
        // SD1.5 has heads of 40, 80 and 160, SDXL of 64; others are those of small and of newer networks.
        for width in [8, 16, 32, 40, 64, 80, 96, 128, 160, 256] {
            let operands = [[2, 2, n, width], [2, 2, 77, width], [2, 2, 77, width]];
            let run: Operator = &|x| attention(&x[0], &x[1], &x[2], false);
            compare(&format!("attention {width} {precision}"), run, &operands, (device, kind), limit);
            graph_changes_nothing(&format!("attention {width} {precision}"), run, &operands, (device, kind));
        }
        let maps = [[2, 64, 32, 32].as_slice(), &[64], &[64]];
        let norm: Operator = &|x| group_norm(&x[0], 8, &x[1], &x[2], 1e-5);
        compare(&format!("group norm {precision}"), norm, &maps, (device, kind), limit);
        let inner: Operator = &|x| group_norm(&channels_last(&x[0]), 8, &x[1], &x[2], 1e-5);
        compare(&format!("group norm, channels last {precision}"), inner, &maps, (device, kind), limit);
        let row = [4, n, 64];
        let rows = [row.as_slice(), &[64], &[64]];
        let layer: Operator = &|x| x[0].layer_norm([64], Some(&x[1]), Some(&x[2]), 1e-5, true);
        compare(&format!("layer norm {precision}"), layer, &rows, (device, kind), limit);
        for (stride, size) in [(1, 3), (2, 3), (1, 1)] {
            let conv: Operator = &|x| conv2d(&channels_last(&x[0]), &x[1], Some(&x[2]), stride, size / 2);
            let operands = [[2, 64, 32, 32].as_slice(), &[96, 64, size, size], &[96]];
            let name = format!("convolution {size} stride {stride} {precision}");
            compare(&name, conv, &operands, (device, kind), limit);
        }
        let lora: Operator =
            &|x| linear(&x[0], &x[1], None) + linear(&linear(&x[0], &x[2], None), &x[3], None) * 0.5;
        let row = [n, 320];
        let operands = [row.as_slice(), &[320, 320], &[8, 320], &[320, 8]];
        compare(&format!("LoRA {precision}"), lora, &operands, (device, kind), limit);
        recomputed(precision, (device, kind));
    }
    optimizer(device);
}

fn channels_last(x: &Tensor) -> Tensor {
    // The order of dimensions in memory that convolutions prefer.
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Numbers of a normal distribution, the same ones for the same `index`. A pattern would cancel in sums, and leave roundings alone.
fn normal(index: u64, shape: &[i64]) -> Tensor {
    let n: i64 = shape.iter().product();
    let mut values = vec![0f32; n as usize];
    Keyed::new(11, Stream::Init, index, 0).fill_normal(&mut values);
    Tensor::from_slice(&values).reshape(shape)
}

/// With a gradient.
fn operands(shapes: &[impl AsRef<[i64]>], device: Device, kind: Kind) -> Vec<Tensor> {
    let draw = |(index, shape): (u64, &[i64])| {
        normal(index, shape).to_kind(kind).to_device(device).set_requires_grad(true)
    };
    (0..).zip(shapes.iter().map(AsRef::as_ref)).map(draw).collect()
}

/// Result and gradients of all operands, f64 on the host.
fn evaluate(run: Operator, operands: &[Tensor]) -> Vec<Tensor> {
    let y = run(operands);
    // As the network's own type holds them, so that they are not what is rounded.
    let weight = normal(99, &y.size()).to_kind(y.kind()).to_kind(Kind::Float).to_device(y.device());
    (y.to_kind(Kind::Float) * weight).sum(Kind::Float).backward();
    let all = std::iter::once(y.detach()).chain(operands.iter().map(Tensor::grad));
    all.map(|tensor| tensor.to_device(Device::Cpu).to_kind(Kind::Double)).collect()
}

fn distance(found: &Tensor, wanted: &Tensor) -> f64 {
    ((found - wanted).norm() / wanted.norm()).double_value(&[])
}

fn compare(
    name: &str,
    run: Operator,
    shapes: &[impl AsRef<[i64]>],
    (device, kind): (Device, Kind),
    limit: f64,
) {
    let found = evaluate(run, &operands(shapes, device, kind));
    // In f32 of the rounded operands: only the device's own rounding is left.
    let rounded: Vec<Tensor> = operands(shapes, Device::Cpu, kind)
        .iter()
        .map(|tensor| tensor.detach().to_kind(Kind::Float).set_requires_grad(true))
        .collect();
    let wanted = evaluate(run, &rounded);
    let worst = found.iter().zip(&wanted).map(|(found, wanted)| distance(found, wanted)).fold(0.0, worse);
    check("operators", name, worst, limit);
}

/// Policy and reference are computed with and without a graph: logits are 0 before the first step only if both give the same.
fn graph_changes_nothing(name: &str, run: Operator, shapes: &[[i64; 4]], (device, kind): (Device, Kind)) {
    let operands = operands(shapes, device, kind);
    let with = run(&operands).detach();
    let without = tch::no_grad(|| run(&operands));
    let largest = (with - without).abs().max().double_value(&[]);
    check("operators", &format!("{name}, with a graph as without"), largest, 0.0);
}

fn recomputed(precision: &str, (device, kind): (Device, Kind)) {
    let shapes = [[64, 64], [64, 64]];
    let kept = evaluate(&|x| linear(&x[0], &x[1], None).silu(), &operands(&shapes, device, kind));
    let again = evaluate(
        &|x| segment(&[x[0].shallow_clone(), x[1].shallow_clone()], |x| linear(&x[0], &x[1], None).silu()),
        &operands(&shapes, device, kind),
    );
    let differ = kept.iter().zip(&again).filter(|(kept, again)| !kept.equal(again)).count();
    check("operators", &format!("recomputing {precision}"), differ as f64, 0.0);
}

fn optimizer(device: Device) {
    let moved = |device| {
        let parameter = operands(&[[300, 7]], device, Kind::Float).remove(0).detach();
        let zeros = || parameter.zeros_like();
        let (mut parameters, mut first, mut second) = ([parameter.shallow_clone()], [zeros()], [zeros()]);
        for number in 1..=3 {
            let gradients = [parameters[0].cos() * number as f64];
            fused_adamw(&mut parameters, &gradients, (&mut first, &mut second), &step(number));
        }
        let [parameter] = parameters;
        parameter.to_device(Device::Cpu).to_kind(Kind::Double)
    };
    check("operators", "AdamW, three steps", distance(&moved(device), &moved(Device::Cpu)), 1e-6);
    let eight_bit = |device| {
        let mut parameter = normal(7, &[5000]).to_device(device);
        let (codes, mut moments) = (Codes::dynamic().to_device(device), Moments8bit::zeros(5000, device));
        for number in 1..=3 {
            let gradient = normal(20 + number as u64, &[5000]).to_device(device);
            adamw_8bit_anywhere(&mut parameter, &gradient, &mut moments, &codes, &step(number));
        }
        [moments.first.codes, moments.second.codes, parameter].map(|tensor| tensor.to_device(Device::Cpu))
    };
    let (found, wanted) = (eight_bit(device), eight_bit(Device::Cpu));
    let others = found[..2]
        .iter()
        .zip(&wanted)
        .map(|(found, wanted)| found.not_equal_tensor(wanted).sum(Kind::Double).double_value(&[]));
    check("operators", "AdamW of 8 bits, other codes", others.sum(), 0.0);
    check("operators", "AdamW of 8 bits", distance(&found[2], &wanted[2]), 1e-6);
}

fn step(number: i64) -> AdamWStep {
    AdamWStep {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weight_decay: 1e-2,
        gradient_scale: 1.0,
        number,
    }
}
