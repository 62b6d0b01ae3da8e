//! Through the deployment's proxy, whose faults are nobody's but ours.

use ringback_core::verdict::Outcome;
use tokio::io::AsyncWriteExt;

use super::*;

fn through(proxy: SocketAddr) -> Http {
    http(&Config {
        proxy: Some(format!("http://{proxy}")),
        allow_networks: None,
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(1),
        ..config()
    })
}

/// The proxy gets the name as it is: it resolves, and nobody else does.
#[tokio::test]
async fn requests_go_through_the_proxy() {
    let (heads, mut seen) = tokio::sync::mpsc::channel(8);
    let (proxy, _) = serve(move |mut stream| {
        let heads = heads.clone();
        async move {
            while let Some(head) = read_request(&mut stream).await {
                heads.send(head).await.unwrap();
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    })
    .await;
    let http = through(proxy);
    let answer = sent(&http, "http://no-such-host.invalid:8090/hook").await;
    assert_eq!(answer.outcome, Outcome::Status(200));
    let head = seen.recv().await.unwrap();
    assert!(
        head.starts_with("post http://no-such-host.invalid:8090/hook http/1.1"),
        "{head}"
    );
    assert!(head.contains("host: no-such-host.invalid:8090"), "{head}");
    // It is no tunnel's end, so TLS fails: that is between us and the receiver.
    let answer = sent(&http, "https://no-such-host.invalid/hook").await;
    assert!(
        matches!(answer.outcome, Outcome::Tls | Outcome::Proxy),
        "{answer:?}"
    );
    let head = seen.recv().await.unwrap();
    assert!(
        head.starts_with("connect no-such-host.invalid:443 http/1.1"),
        "{head}"
    );
}

/// Addresses in URLs are checked all the same.
#[tokio::test]
async fn the_policy_holds_for_addresses_in_urls() {
    let (proxy, connections) = serve(|_| async {}).await;
    let http = through(proxy);
    for url in [
        "http://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::1]/",
        "http://localhost/",
    ] {
        let body = Bytes::from_static(b"{}");
        let error = post(&http, &webhook(url, json!({})), body)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_the_proxy_does_wrong_is_its_own() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let mut proxies = vec![("not there", closed)];
    for (what, answer) in [
        (
            "authentication",
            "HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "no tunnel",
            "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "forbidden",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        ),
        ("nonsense", "SSH-2.0\r\n\r\n"),
        ("early close", ""),
    ] {
        let (address, _) = serve(move |mut stream| async move {
            let _ = read_request(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        proxies.push((what, address));
    }
    let (hanging, _) =
        serve(|mut stream| async move { while read_request(&mut stream).await.is_some() {} }).await;
    proxies.push(("hangs", hanging));
    for (what, proxy) in proxies {
        let answer = sent(&through(proxy), "https://crm.example.com/").await;
        assert_eq!(answer.outcome, Outcome::Proxy, "{what}: {answer:?}");
        assert!(answer.error.is_some(), "{what}");
    }
    let answer = sent(&through(closed), "http://crm.example.com/").await;
    assert_eq!(answer.outcome, Outcome::Proxy, "{answer:?}");
    let (asking, _) = serve(|mut stream| async move {
        let _ = read_request(&mut stream).await;
        let answer = "HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let answer = sent(&through(asking), "http://crm.example.com/").await;
    assert_eq!(answer.outcome, Outcome::Proxy, "{answer:?}");
    assert!(answer.error.unwrap().contains("dispatcher.proxy"));
}
