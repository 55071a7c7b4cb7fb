//! Metrics in JSON, which knows no NaN and no infinity: those become the words `NaN`, `inf`, `-inf`, so that
//! a log never hides one.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Metric {
    Number(f64),
    Word(String),
}

impl From<f64> for Metric {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Word(value.to_string()) }
    }
}

impl Metric {
    fn value<E: de::Error>(self) -> Result<f64, E> {
        match self {
            Self::Number(value) => Ok(value),
            Self::Word(word) => word.parse().map_err(|_| E::custom(format!("\"{word}\" is not a number"))),
        }
    }
}

pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    Metric::from(*value).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Metric::deserialize(deserializer)?.value()
}

/// The same for a metric that not every method has.
pub mod optional {
    use super::{Deserialize, Deserializer, Metric, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Metric::from).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Option::<Metric>::deserialize(deserializer)?.map(Metric::value).transpose()
    }
}

/// The same for the means over quarters of the timesteps, of which some may have no pair.
pub mod quarters {
    use super::{Deserialize, Deserializer, Metric, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        value: &Option<[Option<f64>; 4]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(|quarters| quarters.map(|quarter| quarter.map(Metric::from))).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[Option<f64>; 4]>, D::Error> {
        let Some(metrics) = Option::<[Option<Metric>; 4]>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let mut quarters = [None; 4];
        for (quarter, metric) in quarters.iter_mut().zip(metrics) {
            *quarter = metric.map(Metric::value::<D::Error>).transpose()?;
        }
        Ok(Some(quarters))
    }
}
