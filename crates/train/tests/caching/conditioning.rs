//! Sizes and crops that SDXL is conditioned on.

use super::*;

fn micro_conditioning(time_ids: TimeIds) -> Vec<Vec<f32>> {
    let ranking = Ranking { winner: 0, loser: 1, caption: "a fox".into() };
    let source = InMemoryPairs::new(vec![image(20, 48, 9), image(64, 32, 9)], vec![ranking]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = key(&source, false, 8);
    let cache = make(folder.path(), &key, &source, &Plain::default(), Some(&text(true)), settings(1, (0, 1)))
        .unwrap();
    let pairs = open(&cache, &key, &source, Some(time_ids));
    let uses = [false, true].map(|drop_caption| Use { index: 0, draw: 0, drop_caption });
    let conditioning = batch(&pairs, &uses, false).conditioning;
    conditioning.time_ids.unwrap().unbind(0).iter().map(|row| Vec::try_from(row).unwrap()).collect()
}

#[test]
fn winner_and_loser_are_conditioned_on_the_winners_size_and_crop() {
    // 20 x 48 becomes 16 x 38, of which 11 rows go at the top.
    assert_eq!(micro_conditioning(TimeIds::Real), vec![[48.0, 20.0, 11.0, 0.0, 16.0, 16.0]; 4]);
    assert_eq!(micro_conditioning(TimeIds::Constant), vec![[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]; 4]);
}
