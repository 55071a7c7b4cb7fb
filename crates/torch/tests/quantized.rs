//! Weights of few bits against bitsandbytes and torchao (`golden/quantized`), and the product with them against the plain one.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{golden, values};
use tastemaker_store::dtype::BasePrecision;
use tastemaker_torch::quantized::Quantized;
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

fn recorded() -> Named {
    tensors::read(&golden("quantized/io.safetensors")).unwrap()
}

fn bytes(tensor: &Tensor) -> Tensor {
    tensor.view_dtype(Kind::Uint8)
}

#[test]
fn weights_are_packed_bit_for_bit_as_bitsandbytes_and_torchao_pack_them() {
    let golden = recorded();
    for name in ["small", "large"] {
        let at = |key: &str| &golden[&format!("{name}.{key}")];
        let weight = &golden[name];

        let nf4 = Quantized::nf4_with_f32_scales(weight);
        assert!(nf4.state()[0].equal(at("nf4.codes")), "{name}");
        assert!(nf4.state()[1].equal(at("nf4.absmax")), "{name}");

        let int8 = Quantized::pack(weight, BasePrecision::Int8);
        assert!(int8.state()[0].equal(at("int8.codes")), "{name}");
        assert!(int8.state()[1].flatten(0, -1).equal(&(at("int8.absmax") / 127.0)), "{name}");

        let float8 = Quantized::pack(weight, BasePrecision::Fp8);
        assert!(bytes(&float8.state()[0]).equal(at("float8.codes")), "{name}");
        assert!(float8.state()[1].equal(at("float8.scale")), "{name}");

        let nested = Quantized::pack(weight, BasePrecision::Nf4);
        let [codes, scales, of_scales, _, offset] = nested.state() else { panic!("five tensors") };
        assert!(codes.equal(at("nf4.codes")), "{name}");
        assert!(scales.equal(at("nested.codes")), "{name}");
        assert!(of_scales.allclose(at("nested.absmax"), 1e-6, 0.0, false), "{name}");
        assert!(offset.allclose(at("nested.offset"), 1e-6, 0.0, false), "{name}");
    }
}

#[test]
fn files_of_other_tools_are_unpacked_to_their_weights() {
    let golden = recorded();
    let at = |key: &str| golden[&format!("small.{key}")].shallow_clone();
    let same = |found: &Quantized, wanted: &str| {
        let wanted = at(wanted);
        assert!(found.value(wanted.kind()).equal(&wanted), "{found:?}");
    };
    let code = Quantized::pack(&at("float8.float32"), BasePrecision::Nf4).state()[3].shallow_clone();
    let nf4 = || Quantized::nf4((10, 70), &at("nf4.codes"), at("nf4.absmax"), None).unwrap();
    same(&nf4(), "nf4.float32");
    // The package rounds the table to bfloat16 before it multiplies; one rounding is what its CUDA kernels do.
    let narrow = nf4().value(Kind::BFloat16);
    assert!(narrow.equal(&at("nf4.float32").to_kind(Kind::BFloat16)));
    let nested = [at("nested.absmax"), code, at("nested.offset")];
    let nested = Quantized::nf4((10, 70), &at("nf4.codes").unsqueeze(1), at("nested.codes"), Some(nested));
    same(&nested.unwrap(), "nested.float32");
    let codes = at("torchao_int8.codes").view_dtype(Kind::Int8);
    same(&Quantized::scaled(codes, at("torchao_int8.scale")).unwrap(), "torchao_int8.float32");
    let codes = at("float8.codes").view_dtype(Kind::Float8e4m3fn);
    same(&Quantized::scaled(codes, at("float8.scale")).unwrap(), "float8.float32");
}

#[test]
fn codes_and_scales_that_do_not_fit_are_refused() {
    let codes = |n: i64| Tensor::zeros([n], (Kind::Uint8, Device::Cpu));
    let scales = |n: i64| Tensor::ones([n], (Kind::Float, Device::Cpu));
    let int8 = || Tensor::ones([4, 64], (Kind::Int8, Device::Cpu));
    let cases = [
        ("short codes", Quantized::nf4((4, 64), &codes(127), scales(4), None)),
        ("short scales", Quantized::nf4((4, 64), &codes(128), scales(3), None)),
        ("scales of 8 bits alone", Quantized::nf4((4, 64), &codes(128), codes(4), None)),
        ("no rows", Quantized::nf4((0, 64), &codes(0), scales(0), None)),
        ("codes of f32", Quantized::scaled(values(&[4, 64], 0.0), scales(1))),
        ("scales of other rows", Quantized::scaled(int8(), scales(3).unsqueeze(1))),
        ("blocks that do not divide", Quantized::scaled(int8(), scales(20).reshape([4, 5, 1]))),
    ];
    for (what, made) in cases {
        assert!(made.is_err(), "{what}: {made:?}");
    }
    for faulty in [
        Quantized::nf4((4, 64), &codes(128), scales(4) * f64::NAN, None),
        Quantized::scaled(int8(), scales(1) * f64::INFINITY),
    ] {
        assert!(!faulty.unwrap().is_finite());
    }
    assert!(Quantized::scaled(int8(), scales(1)).unwrap().is_finite());
}

/// Section 5.2 of the notes that the formats were taken from: of a Gaussian 512 x 512.
#[test]
fn errors_of_each_format_are_those_of_published_measurements() {
    tch::manual_seed(5);
    let weight = Tensor::randn([512, 512], (Kind::Float, Device::Cpu));
    let limits = [
        (BasePrecision::Bf16, 0.0017),
        (BasePrecision::Int8, 0.0075),
        (BasePrecision::Fp8, 0.0263),
        (BasePrecision::Nf4, 0.0921),
    ];
    for (precision, wanted) in limits {
        let away = Quantized::pack(&weight, precision).value(Kind::Float) - &weight;
        let error = (away.norm() / weight.norm()).double_value(&[]);
        assert!((error / wanted - 1.0).abs() < 0.05, "{precision}: {error}");
    }
}

#[test]
fn every_device_unpacks_alike_and_zeros_stay_zeros() {
    for precision in BasePrecision::ALL {
        // An odd number of elements, so that the last byte is half empty.
        let weight = values(&[7, 97], 1.0);
        let _ = weight.get(2).zero_();
        let packed = Quantized::pack(&weight, precision);
        let by_blocks = packed.value(Kind::Float);
        assert!(by_blocks.equal(&packed.value_anywhere(Kind::Float)), "{precision}");
        let zeros = by_blocks.get(2).abs().max().double_value(&[]);
        // In NF4 a block goes over the end of a row.
        assert!(zeros < 1e-6, "{precision}: {zeros}");
        let n: u64 = packed
            .state()
            .iter()
            .map(|tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64)
            .sum();
        assert!(n <= precision.bytes(7, 97) + 4, "{precision}: {n}");
    }
}

#[test]
fn the_product_and_its_gradient_are_those_of_the_unpacked_weight() {
    for precision in BasePrecision::ALL {
        for kind in [Kind::Float, Kind::BFloat16] {
            let packed = Quantized::pack(&values(&[24, 80], 1.0), precision);
            let bias = values(&[24], 2.0).to_kind(kind);
            let leaf = || values(&[2, 5, 80], 3.0).to_kind(kind).set_requires_grad(true);
            let (x, plain) = (leaf(), leaf());
            let y = packed.linear(&x, Some(&bias));
            let wanted = tastemaker_torch::products::linear(&plain, &packed.value(kind), Some(&bias));
            assert!(y.equal(&wanted), "{precision} {kind:?}");
            (y.square()).sum(Kind::Float).backward();
            (wanted.square()).sum(Kind::Float).backward();
            assert!(x.grad().equal(&plain.grad()), "{precision} {kind:?}");
        }
    }
}
