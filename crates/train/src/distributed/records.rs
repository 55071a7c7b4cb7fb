//! Records of pairs as bytes, for other processes.

use tastemaker_math::objectives::{Label, Outcome};

use crate::step::PairRecord;

/// Numbers of a record.
pub(super) const RECORD_WIDTH: usize = 15;

/// Stands for what a record does not have: a NaN that no measurement gives.
const NONE: u64 = 0x7ff8_dead_0000_0001;

/// A record as numbers.
pub(super) fn to_numbers(record: &PairRecord) -> [f64; RECORD_WIDTH] {
    let none = f64::from_bits(NONE);
    let Outcome { loss, d_winner, d_loser, d_distance, logit, residual_factor } = record.outcome;
    let (ref_winner, ref_loser) = record.reference.unwrap_or((none, none));
    [
        f64::from_bits(record.id),
        record.timestep,
        record.winner_error,
        record.loser_error.unwrap_or(none),
        ref_winner,
        ref_loser,
        loss,
        d_winner,
        d_loser,
        logit.unwrap_or(none),
        match record.label {
            None => 0.0,
            Some(Label::Liked) => 1.0,
            Some(Label::Disliked) => -1.0,
        },
        residual_factor.unwrap_or(none),
        d_distance,
        record.square,
        record.ref_square.unwrap_or(none),
    ]
}

/// The record that [`to_numbers`] gave.
pub(super) fn from_numbers(sent: &[f64]) -> PairRecord {
    let maybe = |number: f64| (number.to_bits() != NONE).then_some(number);
    PairRecord {
        id: sent[0].to_bits(),
        timestep: sent[1],
        winner_error: sent[2],
        loser_error: maybe(sent[3]),
        reference: maybe(sent[4]).map(|winner| (winner, sent[5])),
        label: match sent[10] {
            0.0 => None,
            sign => Some(if sign > 0.0 { Label::Liked } else { Label::Disliked }),
        },
        square: sent[13],
        ref_square: maybe(sent[14]),
        outcome: Outcome {
            loss: sent[6],
            d_winner: sent[7],
            d_loser: sent[8],
            d_distance: sent[12],
            logit: maybe(sent[9]),
            residual_factor: maybe(sent[11]),
        },
    }
}

/// Numbers as bytes.
pub(super) fn bytes(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_bits().to_le_bytes()).collect()
}

/// Numbers from bytes.
pub(super) fn numbers(bytes: &[u8]) -> Vec<f64> {
    let words = bytes.as_chunks::<8>().0.iter();
    words.map(|word| f64::from_bits(u64::from_le_bytes(*word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_being_sent() {
        for (loser_error, reference) in [(None, None), (Some(f64::INFINITY), Some((0.25, f64::NAN)))] {
            let residual_factor = reference.map(|_| 0.5);
            let outcome = Outcome {
                loss: f64::NAN,
                d_winner: 1.0,
                d_loser: -0.0,
                d_distance: 0.25,
                logit: None,
                residual_factor,
            };
            let record = PairRecord {
                label: Some(Label::Disliked),
                id: u64::MAX - 7,
                timestep: 954.5,
                winner_error: 0.5,
                loser_error,
                reference,
                square: 0.75,
                ref_square: residual_factor.map(|_| 0.7),
                outcome,
            };
            let back = from_numbers(&numbers(&bytes(&to_numbers(&record))));
            assert_eq!(format!("{back:?}"), format!("{record:?}"));
        }
    }
}
