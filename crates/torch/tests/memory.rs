//! What is held in memory, and for how long.

use tastemaker_torch::products::conv2d;
use tch::{Device, Kind, Tensor};

/// Values of no pattern between -1 and 1.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 12.9898 + phase).sin().reshape(shape)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_block_that_was_freed_is_taken_by_the_next_of_its_size() {
    let block = || Tensor::empty([16 << 10], (Kind::Float, Device::Cpu));
    let first = block();
    // So that nothing free lies around it.
    let _after = block();
    let place = first.data_ptr();
    assert_eq!(place as usize % 64, 0);
    drop(first);
    assert_eq!(block().data_ptr(), place);
}

#[test]
fn a_frozen_convolution_gives_the_same_bits_as_one_that_keeps_its_input() {
    for (is_innermost, stride, padding, kernel) in
        [(true, 1, 1, 3), (true, 2, 1, 3), (true, 1, 0, 1), (false, 1, 1, 3)]
    {
        let laid = |x: Tensor| match is_innermost {
            true => x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
            false => x,
        };
        let w = laid(values(&[10, 6, kernel, kernel], 1.0));
        let b = values(&[10], 2.0);
        let run = |keeps: bool| {
            let x = laid(values(&[2, 6, 9, 8], 0.0)).set_requires_grad(true);
            let y = match keeps {
                false => conv2d(&x, &w, Some(&b), stride, padding),
                true => x.conv2d(&w, Some(&b), [stride, stride], [padding, padding], [1, 1], 1),
            };
            (&y * &values(&y.size(), 5.0)).sum(Kind::Float).backward();
            (y, x.grad())
        };
        let ((ours, gradient), (theirs, wanted)) = (run(false), run(true));
        assert!(ours.equal(&theirs) && gradient.equal(&wanted), "{is_innermost} {stride} {kernel}");
    }
}

#[test]
fn a_frozen_convolution_does_not_keep_its_input() {
    let w = values(&[8, 8, 3, 3], 1.0);
    let x = values(&[1, 8, 8, 8], 0.0).set_requires_grad(true);
    // An input whose place is free again is one that nobody keeps.
    let input = &x * 1.0;
    let place = input.data_ptr();
    let y = conv2d(&input, &w, None, 1, 1);
    drop(input);
    let next = Tensor::empty([1, 8, 8, 8], (Kind::Float, Device::Cpu));
    assert_eq!(next.data_ptr(), place);
    y.sum(Kind::Float).backward();
    assert!(x.grad().defined());
}
