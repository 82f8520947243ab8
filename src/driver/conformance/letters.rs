//! Dead letters that are edited, and restored from an export. A driver without these powers
//! passes.

use bytes::Bytes;

use super::Fixture;
use super::admin::{READERS, bury, log};
use super::kit::{Client, group, payloads, texts};
use crate::delivery::{DeadLetter, EntryId};
use crate::driver::Backlog;
use crate::driver::admin::{Admin, Redriven, STEP_MAX};
use crate::envelope::PAYLOAD_BYTES_MAX;
use crate::error::ErrorKind;

/// All letters of the group, in order.
async fn letters(admin: &dyn Admin) -> Vec<DeadLetter> {
    let page = admin.page(&group(READERS), &log(), EntryId::ZERO, STEP_MAX).await;
    page.expect("a page").letters
}

async fn edit(admin: &dyn Admin, id: EntryId, payload: &'static str) -> Option<EntryId> {
    let payload = Bytes::from_static(payload.as_bytes());
    admin.edit(&group(READERS), &log(), id, payload).await.expect("an answer")
}

async fn restore(admin: &dyn Admin, these: &[DeadLetter], last: EntryId) -> Option<EntryId> {
    admin.restore(&group(READERS), &log(), these, last).await.expect("an answer")
}

/// An edited letter is the same one with another payload: what was published stays beside it.
pub async fn an_edit_keeps_what_was_published(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = bury(&client, &texts("event ", 2)).await;
    let before = letters(admin).await;
    let id = edit(admin, before[0].id, "mended").await.expect("it is there");
    assert!(id > before[1].id, "an edited letter is the last");
    let again = edit(admin, id, "mended again").await.expect("it is there");
    let after = letters(admin).await;
    assert_eq!(after[0], before[1]);
    let (edited, first) = (after[1].clone(), before[0].clone());
    assert_eq!((edited.id, edited.first_id), (again, first.id));
    assert_eq!(edited.original.as_ref(), Some(first.record.as_ref().expect("an event").payload()));
    assert!(edited.is_same(&first) && !edited.is_same(&after[0]));
    let event = edited.record.as_ref().expect("an event");
    assert_eq!(event.payload(), "mended again");
    let (id, first_id) = (event.id(), first.record.as_ref().map(crate::Envelope::id));
    assert_eq!(Ok(id), first_id);
    let restored =
        DeadLetter { id: first.id, record: first.record.clone(), original: None, ..edited };
    assert_eq!(restored, first, "the rest is as it was");
    let done = admin.redrive(&group(READERS), &log(), &[again]).await.expect("redriven");
    assert_eq!(done.moved, 1);
    assert_eq!(consumer.handle(1).await, ["mended again"]);
}

/// Of two changes of one letter only the first comes true.
pub async fn an_edit_and_a_redrive_exclude_each_other(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let mut consumer = bury(&client, &texts("event ", 2)).await;
    let ids: Vec<EntryId> = letters(admin).await.iter().map(|letter| letter.id).collect();
    let edited = edit(admin, ids[0], "mended").await.expect("it is there");
    let done = admin.redrive(&group(READERS), &log(), &ids).await.expect("an answer");
    assert_eq!(done, Redriven { moved: 1, missing: 1, malformed: 0 });
    let taken = consumer.take(1).await;
    assert_eq!(payloads(&taken), ["event 1"]);
    consumer.ack(&taken).await;
    assert_eq!(edit(admin, ids[0], "late").await, None, "it was edited");
    assert_eq!(edit(admin, ids[1], "late").await, None, "it was redriven");
    assert_eq!(letters(admin).await.len(), 1);
    let large = Bytes::from(vec![0; PAYLOAD_BYTES_MAX + 1]);
    let error = admin.edit(&group(READERS), &log(), edited, large).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    client.settles_to(READERS, Backlog { dead: 1, ..Backlog::default() }).await;
}

/// What holds no event has no payload to edit; it is restored as it was.
pub async fn the_malformed_is_restored_and_not_edited(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    if !fixture.foreign(&log(), vec![("foo".into(), "bar".into())]).await {
        return;
    }
    let mut consumer = client.join(READERS).await;
    let deliveries = consumer.take(1).await;
    consumer.end(&deliveries, &super::kit::dead_letter()).await;
    let before = letters(admin).await;
    let payload = Bytes::from_static(b"1");
    let error = admin.edit(&group(READERS), &log(), before[0].id, payload).await;
    assert_eq!(error.expect_err("no event").kind(), ErrorKind::Invalid);
    assert_eq!(letters(admin).await, before);
    admin.purge(&group(READERS), &log(), &[before[0].id]).await.expect("deleted");
    let id = restore(admin, &before, EntryId::ZERO).await.expect("restored");
    assert_eq!(letters(admin).await, [DeadLetter { id, ..before[0].clone() }]);
}

/// Restored letters are what they were; where another came since the look, nothing is added.
pub async fn letters_are_restored_as_they_were(fixture: &dyn Fixture) {
    let client = Client::new(fixture).await;
    let Some(admin) = client.driver.admin() else { return };
    let _consumer = bury(&client, &texts("event ", 3)).await;
    let edited = edit(admin, letters(admin).await[1].id, "mended").await.expect("edited");
    let before = letters(admin).await;
    assert_eq!(before[2].id, edited);
    let ids: Vec<EntryId> = before.iter().map(|letter| letter.id).collect();
    admin.purge(&group(READERS), &log(), &ids[..2]).await.expect("deleted");
    assert_eq!(restore(admin, &before[..2], ids[1]).await, None, "there is one behind it");
    assert_eq!(restore(admin, &[], edited).await, Some(edited));
    let last = restore(admin, &before[..2], edited).await.expect("restored");
    let after = letters(admin).await;
    assert_eq!((after.len(), after[0].clone()), (3, before[2].clone()));
    assert_eq!(after[2].id, last);
    for (restored, was) in after[1..].iter().zip(&before) {
        assert!(restored.is_same(was) && restored.id > edited);
        assert_eq!(restored, &DeadLetter { id: restored.id, ..was.clone() });
    }
    let many = vec![before[0].clone(); STEP_MAX + 1];
    let error = admin.restore(&group(READERS), &log(), &many, last).await.expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let wrong = admin.restore(&group("nobody"), &log(), &before[..1], EntryId::ZERO).await;
    assert_eq!(wrong.expect_err("it reads nothing").kind(), ErrorKind::Invalid);
}
