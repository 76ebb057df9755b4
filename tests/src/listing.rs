//! Lists read to their end, over memory: each once, whatever the order that an index has them in.

use std::collections::BTreeSet;
use std::time::Duration;

use api::DeliveryId;
use pipeline::engine::deliveries::{self, Filter};

use crate::world::{World, attestation, scope};

/// Every page to the last; how many there were.
async fn pages(world: &World, of: Filter, limit: usize) -> (Vec<DeliveryId>, usize) {
    let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, None);
    let mut last = None;
    loop {
        let (page, next) = deliveries::list(
            scope(&world.memory),
            of.clone(),
            &deliveries::Wanted::default(),
            cursor.as_ref(),
            limit,
        )
        .await
        .unwrap();
        assert!(page.len() <= limit);
        for delivery in page {
            assert!(last.is_none_or(|last| delivery.created_at <= last));
            last = Some(delivery.created_at);
            ids.push(delivery.id);
        }
        pages += 1;
        match next {
            Some(next) => cursor = Some(next),
            None => return (ids, pages),
        }
    }
}

#[tokio::test]
async fn every_delivery_is_on_one_page_of_each_list_however_many_are_of_one_moment() {
    let world = World::new();
    let registrations = ["one", "two", "three"];
    let mut ids = Vec::new();
    for (number, name) in registrations.into_iter().enumerate() {
        ids.push(world.register(name).await.unwrap().id);
        for _ in 0..10 * (number + 1) {
            world.attach(name).await;
        }
    }
    let (mut expected, mut workflow) = (BTreeSet::new(), None);
    for run in 0..4 {
        let bytes = attestation(&format!("{run}"), vec![]).compact();
        let accepted = world.push(bytes).await.unwrap();
        expected.extend(accepted.plan.deliveries().map(|(id, _)| id));
        workflow = Some(accepted.attestation.workflow);
        // Two of them in the same moment.
        world
            .memory
            .advance(Duration::from_secs(u64::from(run != 1)));
    }
    assert_eq!(expected.len(), 240);
    let workflow = workflow.unwrap();
    for limit in [1, 7, 50, 240, 500] {
        for of in [Filter::Workflow(workflow.clone()), Filter::Organization] {
            let (found, pages) = pages(&world, of.clone(), limit).await;
            assert_eq!(found.len(), 240, "{of:?} by {limit}");
            assert_eq!(BTreeSet::from_iter(found), expected, "{of:?} by {limit}");
            assert!(
                pages <= 240_usize.div_ceil(limit) + 4,
                "{pages} pages of {limit}"
            );
        }
        let mut found = Vec::new();
        for id in &ids {
            let of = Filter::Registration(id.clone());
            found.extend(pages(&world, of, limit).await.0);
        }
        assert_eq!(found.len(), 240, "by {limit}");
        assert_eq!(BTreeSet::from_iter(found), expected, "by {limit}");
    }
}
