//! Each example for users applies alone.

use e2e::story::Story;

#[tokio::test]
async fn each_example_is_accepted_as_it_stands() {
    let story = Story::new("examples").await;
    let mut count = 0;
    for entry in std::fs::read_dir(story.run.checkout.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let manifest: serde_json::Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert!(manifest["metadata"]["namespace"].is_null(), "{path:?} names a namespace");
        assert_eq!(story.refusal(manifest).await, None, "{path:?}");
        count += 1;
    }
    assert!(count >= 5);
    story.end().await;
}
