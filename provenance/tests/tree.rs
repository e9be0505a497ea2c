//! The tree against the published vectors of RFC 6962's reference implementation and against a naive tree.

#![allow(clippy::unwrap_used)]

use orrery_provenance::tree::{Hash, Tree, empty_root, leaf_hash, node_hash, verify_consistency, verify_inclusion};
use proptest::prelude::*;

const LEAVES: [&str; 8] = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
];
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn published_tree() -> Tree {
    Tree::from_leaves(LEAVES.iter().map(|leaf| leaf_hash(&hex::decode(leaf).unwrap())))
}

fn hexes(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(hex::encode).collect()
}

#[test]
fn roots_are_the_published_ones() {
    let tree = published_tree();
    for (size, root) in ROOTS.iter().enumerate() {
        assert_eq!(hex::encode(tree.root_at(size as u64).unwrap()), *root, "size {size}");
    }
    assert_eq!(hex::encode(empty_root()), ROOTS[0]);
    assert_eq!(tree.root_at(9), None);
}

#[test]
fn proofs_are_the_published_ones() {
    let tree = published_tree();
    let first_of_eight = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    assert_eq!(hexes(&tree.inclusion_proof(0, 8).unwrap()), first_of_eight);
    assert_eq!(hexes(&tree.consistency_proof(1, 8).unwrap()), first_of_eight);
    let six_to_eight = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    assert_eq!(hexes(&tree.consistency_proof(6, 8).unwrap()), six_to_eight);
}

/// RFC 6962 §2.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

fn leaves(count: usize) -> Vec<Hash> {
    (0..count).map(|n| leaf_hash(&n.to_le_bytes())).collect()
}

#[test]
fn every_proof_of_every_small_tree_verifies_and_is_as_long_as_it_must_be() {
    let all = leaves(40);
    let tree = Tree::from_leaves(all.iter().copied());
    for size in 0..=40u64 {
        let root = tree.root_at(size).unwrap();
        assert_eq!(root, naive_root(&all[..size as usize]), "size {size}");
        for index in 0..size {
            let proof = tree.inclusion_proof(index, size).unwrap();
            assert!(
                verify_inclusion(index, size, &all[index as usize], &proof, &root),
                "{index} of {size}"
            );
        }
        for old in 0..=size {
            let proof = tree.consistency_proof(old, size).unwrap();
            let old_root = tree.root_at(old).unwrap();
            assert!(
                verify_consistency(old, size, &old_root, &root, &proof),
                "{old} to {size}"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_false_inclusion_is_refused(size in 1u64..200, at in any::<prop::sample::Index>(), change in 0usize..5, flip in any::<prop::sample::Index>()) {
        let all = leaves(size as usize);
        let tree = Tree::from_leaves(all.iter().copied());
        let index = at.index(size as usize) as u64;
        let mut proof = tree.inclusion_proof(index, size).unwrap();
        let (mut leaf, mut root, mut claimed) = (all[index as usize], tree.root(), index);
        match change {
            0 => leaf[flip.index(32)] ^= 1,
            1 => root[flip.index(32)] ^= 1,
            2 => claimed = (index + 1) % size,
            3 => proof.push([0; 32]),
            _ => match proof.len() {
                0 => proof.push([1; 32]),
                len => proof[flip.index(len)][0] ^= 1,
            },
        }
        prop_assume!(claimed != index || change != 2);
        prop_assert!(!verify_inclusion(claimed, size, &leaf, &proof, &root));
        prop_assert!(!verify_inclusion(size, size, &leaf, &proof, &root));
    }

    #[test]
    fn a_rewritten_history_is_refused(old in 1u64..150, more in 1u64..150, at in any::<prop::sample::Index>()) {
        let size = old + more;
        let honest = Tree::from_leaves(leaves(size as usize));
        let mut forged = leaves(size as usize);
        forged[at.index(old as usize)][0] ^= 1;
        let forged = Tree::from_leaves(forged);
        let proof = forged.consistency_proof(old, size).unwrap();
        let old_root = honest.root_at(old).unwrap();
        prop_assert!(!verify_consistency(old, size, &old_root, &forged.root(), &proof));
        prop_assert!(verify_consistency(old, size, &old_root, &honest.root(), &honest.consistency_proof(old, size).unwrap()));
    }

    #[test]
    fn truncating_is_never_having_pushed(size in 0usize..100, cut in 0usize..100, more in 0usize..20) {
        let cut = cut.min(size);
        let mut tree = Tree::from_leaves(leaves(size));
        tree.truncate(cut as u64);
        let rest = leaves(cut + more);
        rest[cut..].iter().for_each(|leaf| tree.push(*leaf));
        prop_assert_eq!(tree.root(), naive_root(&rest));
    }
}
