//! The projection on the command line.

use ringback_admin::{Projection, ProjectionConfig};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_projection_says_how_it_is_and_is_rebuilt() {
    let rig = Rig::new().await;
    let none = rig.ok("projection status").await;
    assert!(none.contains("read from the log"), "{none}");
    let (_, said) = rig.fails("projection rebuild").await;
    assert!(said.contains("admin.projection.engine"), "{said}");

    let files = rig.dir.path().join("projection");
    let clock = ringback_log::system_clock();
    let config = ProjectionConfig::default();
    let projection = Projection::new(&config, "test", &files, clock).unwrap();
    rig.state.show(projection.clone());
    let projecting = projection
        .start(&rig.log, &ringback_telemetry::Metrics::new())
        .unwrap();
    let until = async |state: &str| {
        loop {
            let status = rig.json("projection status").await;
            if status["state"] == state {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = until("projecting").await;
    assert_eq!((&status["lost"], &status["behind"]), (&json!(0), &json!(0)));
    let text = rig.ok("projection status").await;
    assert!(text.contains(files.to_str().unwrap()), "{text}");
    let began = status["as_of"].as_str().unwrap().to_owned();
    rig.ok("projection rebuild").await;
    loop {
        let status = until("projecting").await;
        if status["as_of"].as_str() > Some(&began) {
            break;
        }
    }
    tokio::task::spawn_blocking(move || drop(projecting))
        .await
        .unwrap();
}
