use super::*;
use crate::conformance::{all, cut};

/// Uploads whose bytes are joined to that of another.
struct Joint {
    store: Store,
    handle: Handle,
    key: Key,
    parts: Vec<Part>,
    whole: Vec<u8>,
}

impl Joint {
    async fn new(store: &Store, number: u32) -> Self {
        let key = key(&format!("joined/{number}.mp4"));
        let plan = Plan::sequential(None);
        Self {
            store: store.clone(),
            handle: answered(store.begin(upload_id(5000 + number), &key, &plan).await),
            key,
            parts: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// The slot at the end, for as many bytes as `parts` have.
    fn slot(&self, parts: &[Part]) -> Slot {
        let number = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        Slot::at(number, self.whole.len() as u64, len(parts))
    }

    fn before(&self) -> Before<'_> {
        Before::committed(self.parts.last().map(|part| &part.receipt))
    }

    async fn ask(&self, from: &Scene, parts: &[Part]) -> Joined {
        let slot = self.slot(parts);
        answered(
            self.store
                .join(&self.handle, slot, self.before(), &from.handle, parts)
                .await,
        )
    }

    /// Joins `parts` at the end.
    async fn join(&mut self, from: &Scene, parts: &[Part]) {
        match self.ask(from, parts).await {
            Joined::Done(receipt) => self.note(from, parts, receipt),
            lost @ Joined::PartsLost(_) => panic!("Parts that are there must be joined, got {lost:?}"),
        }
    }

    fn note(&mut self, from: &Scene, parts: &[Part], receipt: Receipt) {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| from.right(part.number)).collect();
        let number = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
        self.parts.push(part(number, &bytes, receipt));
        self.whole.extend(bytes);
    }

    /// Completes and looks at every byte.
    async fn publish(&self, clause: &str) {
        let done = answered(self.store.complete(&self.handle, &self.key, &self.parts).await);
        assert!(
            matches!(&done, Completed::Done(blob) if blob.size == self.whole.len() as u64),
            "{clause}: what was joined must be there, got {done:?}"
        );
        let bytes = bytes_of(&self.store, &self.key).await;
        assert!(
            bytes == self.whole,
            "{clause}: the blob must be exactly the joined bytes, {}",
            differ(&bytes, &self.whole)
        );
    }
}

fn len(parts: &[Part]) -> u64 {
    parts.iter().map(|part| part.len).sum()
}

/// Several parts, one, none, of several uploads, and beside parts that were written.
pub async fn joined_parts_make_one_part(store: Store) {
    let (first, second) = (Scene::source(&store, 1, 4).await, Scene::source(&store, 2, 3).await);
    let of_first = first.send_all().await;
    let mut of_second = vec![second.send(0).await];
    of_second.push(write(&store, &second.handle, Slot::aside(1, second.chunk), &second.right(1)).await);
    of_second.push(second.send(2).await);

    let mut joint = Joint::new(&store, 1).await;
    joint.join(&second, &of_second).await;
    joint.join(&first, &of_first).await;
    joint.join(&first, &of_first[1..3]).await;
    joint.join(&second, &[]).await;
    joint.join(&first, &of_first[..1]).await;
    let slot = Slot::at(5, joint.whole.len() as u64, second.chunk);
    let written = append(&store, &joint.handle, slot, joint.before(), &second.right(1)).await;
    joint.note(&second, &of_second[1..2], written.receipt);
    joint.join(&second, &of_second[2..]).await;
    joint.publish("Parts of two uploads joined to a third").await;
}

/// After it was done, dropped at any point, or by several at once: it comes to the same.
pub async fn a_join_can_be_done_again(store: Store) {
    let scene = Scene::source(&store, 1, 3).await;
    let parts = scene.send_all().await;
    let mut joint = Joint::new(&store, 1).await;
    for polls in 1..=10 {
        let slot = joint.slot(&parts);
        cut(
            store.join(&joint.handle, slot, joint.before(), &scene.handle, &parts),
            polls,
        )
        .await;
        joint.ask(&scene, &parts).await;
        joint.join(&scene, &parts).await;
    }
    let slot = joint.slot(&parts);
    let tasks = (0..4).map(|_| {
        let (store, into, from, parts) = (store.clone(), joint.handle.clone(), scene.handle.clone(), parts.clone());
        let last = joint.parts.last().map(|part| part.receipt.clone());
        tokio::spawn(async move {
            let before = Before::committed(last.as_ref());
            store.join(&into, slot, before, &from, &parts).await
        })
    });
    for answer in all(tasks.collect()).await {
        assert!(
            matches!(&answer, Ok(Joined::Done(_))) || kind(answer) == Some(ErrorKind::Superseded),
            "Of several joins of one slot each is done or superseded"
        );
    }
    joint.join(&scene, &parts).await;
    joint.publish("Joined again and again").await;
}

/// Neither the parts nor the uploads they are of, which can be joined, written to and completed as before.
pub async fn a_join_changes_nothing_it_is_made_of(store: Store) {
    let scene = Scene::source(&store, 1, 3).await;
    let mut parts = vec![scene.send(0).await, scene.send(1).await];
    let (mut joint, mut other) = (Joint::new(&store, 1).await, Joint::new(&store, 2).await);
    joint.join(&scene, &parts).await;
    other.join(&scene, &parts[1..]).await;
    other.join(&scene, &parts[..1]).await;
    answered(store.discard(&joint.handle).await);
    parts.push(scene.send(2).await);
    other.join(&scene, &parts[2..]).await;
    scene
        .publish(&parts, "After its parts were joined to other uploads")
        .await;
    answered(store.discard(&scene.handle).await);
    answered(store.delete(&scene.key).await);
    other
        .publish("After the upload that its parts are of was deleted")
        .await;
}

/// Parts that are not there as recorded are named, and the slot can be filled all the same.
pub async fn a_join_names_lost_parts(store: Store) {
    let scene = Scene::source(&store, 1, 4).await;
    let replaced = scene.send(0).await;
    let parts = [scene.send(0).await, scene.send(1).await];
    let never = Part::new(2, scene.chunk, 0, Receipt::new("0"));
    let altered = Part {
        receipt: Receipt::new(format!("{}0", parts[1].receipt.as_str())),
        ..parts[1].clone()
    };
    let mut joint = Joint::new(&store, 1).await;
    for (what, asked, number) in [
        ("one was never sent", vec![parts[0].clone(), parts[1].clone(), never], 2),
        ("one has another receipt", vec![parts[0].clone(), altered], 1),
    ] {
        let Joined::PartsLost(lost) = joint.ask(&scene, &asked).await else {
            panic!("`join` must tell of parts that are not there as recorded: {what}");
        };
        assert!(
            lost.contains(&number),
            "`join` must name the part that is not there as recorded: {what}, got {lost:?}"
        );
    }
    // A store that keeps every attempt apart may have it still, with the same bytes.
    let asked = [replaced, parts[1].clone()];
    match joint.ask(&scene, &asked).await {
        Joined::Done(receipt) => joint.note(&scene, &asked, receipt),
        Joined::PartsLost(lost) => assert!(
            lost.contains(&0),
            "`join` must name the part that is not there as recorded: one was replaced, got {lost:?}"
        ),
    }
    joint.join(&scene, &parts).await;

    let gone = Scene::source(&store, 2, 2).await;
    let of_gone = gone.send_all().await;
    answered(store.discard(&gone.handle).await);
    let answer = joint.ask(&gone, &of_gone).await;
    assert!(
        matches!(&answer, Joined::PartsLost(lost) if !lost.is_empty()),
        "`join` must tell that parts of a discarded upload are lost, got {answer:?}"
    );
    joint.join(&scene, &parts[..1]).await;
    joint.publish("After joins of lost parts").await;
}

/// It supersedes whoever writes there, and is itself superseded by a seal.
pub async fn a_join_claims_its_slot(store: Store) {
    let scene = Scene::source(&store, 1, 2).await;
    let parts = scene.send_all().await;
    let mut joint = Joint::new(&store, 1).await;
    let slot = joint.slot(&parts);
    let mut older = answered(store.append(&joint.handle, slot, joint.before()).await);
    answered(older.write(vec![scene.wrong(0).slice(..100)]).await);
    joint.join(&scene, &parts).await;
    assert_eq!(
        kind(older.write(vec![scene.wrong(1)]).await),
        Some(ErrorKind::Superseded),
        "A writer is superseded by a join of its slot"
    );
    drop(older);
    joint.publish("After an older attempt went on beside a join").await;
}

/// Once it is published nothing is joined to an upload any more.
pub async fn a_join_never_touches_what_is_published(store: Store) {
    let scene = Scene::source(&store, 1, 2).await;
    let parts = scene.send_all().await;
    let mut joint = Joint::new(&store, 1).await;
    joint.join(&scene, &parts).await;
    joint.publish("Joined once").await;
    for slot in [Slot::at(0, 0, len(&parts)), joint.slot(&parts)] {
        let late = store
            .join(&joint.handle, slot, joint.before(), &scene.handle, &parts[1..])
            .await;
        assert!(
            late.is_err(),
            "Nothing can be joined to a published upload, got {late:?}"
        );
    }
    joint.publish("After late joins").await;
    let same = store.join(
        &scene.handle,
        Slot::at(2, scene.size(), scene.chunk),
        Before::default(),
        &scene.handle,
        &parts[1..],
    );
    assert_eq!(
        kind(same.await),
        Some(ErrorKind::Invalid),
        "An upload is not joined to itself"
    );
    scene.publish(&parts, "After it was joined to itself in vain").await;
}
