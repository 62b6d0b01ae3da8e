//! Through the deployment's proxy, whose faults are nobody's but ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringback_core::secret::Secret;
use ringback_core::verdict::Outcome;
use ringback_tests::certificates::Authority;
use tokio::io::AsyncWriteExt;

use super::tls::{BOTH, names, tls, trusting};
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

const USER: &str = "ringbäck";
const PASSWORD: &str = "hunter2: with a colon";

/// A proxy that wants to know who we are (Basic): it leads a tunnel to `receiver` whatever name is asked
/// for, and answers other requests itself. It tells what it was asked, and whether it agreed.
async fn asking(
    receiver: SocketAddr,
) -> (
    SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<(String, bool)>,
) {
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    let login = STANDARD.encode(format!("{USER}:{PASSWORD}")).to_lowercase();
    let expected = format!("\r\nproxy-authorization: basic {login}\r\n");
    let (address, _) = serve(move |mut stream| {
        let (tell, expected) = (tell.clone(), expected.clone());
        async move {
            while let Some(head) = read_request(&mut stream).await {
                let agreed = format!("{head}\r\n").contains(&expected);
                let tunnel = head.starts_with("connect ");
                tell.send((head, agreed)).unwrap();
                let answer = match agreed {
                    true if tunnel => "HTTP/1.1 200 Connected\r\n\r\n",
                    true => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                    false => {
                        "HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=\"intern\"\r\nContent-Length: 0\r\n\r\n"
                    }
                };
                stream.write_all(answer.as_bytes()).await.unwrap();
                if agreed && tunnel {
                    let mut receiver = TcpStream::connect(receiver).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut receiver).await;
                    return;
                }
            }
        }
    })
    .await;
    (address, told)
}

/// Requests and tunnels alike carry the login, and nobody but the proxy sees it.
#[tokio::test]
async fn the_proxy_is_told_who_we_are() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("a deployment's own");
    let certificate = authority.sign(names(&["crm.example.com"]));
    let (receiver, reached) = tls(&certificate, BOTH, None).await;
    let (proxy, mut told) = asking(receiver).await;
    let password =
        ringback_tests::certificates::write(dir.path(), "password", &format!("{PASSWORD}\n"));
    let asked = Config {
        proxy: Some(format!("http://{proxy}")),
        proxy_username: Some(USER.to_owned()),
        ..trusting(&dir, &authority)
    };
    let with_text = Config {
        proxy_password: Some(Secret::new(PASSWORD)),
        ..asked.clone()
    };
    let with_file = Config {
        proxy_password_file: Some(password),
        ..asked.clone()
    };
    for config in [&with_text, &with_file] {
        assert_eq!(config.problems(), Vec::<String>::new());
        let http = http(config);
        for url in ["http://crm.example.com/", "https://crm.example.com/"] {
            let answer = sent(&http, url).await;
            assert_eq!(answer.outcome, Outcome::Status(200), "{url}: {answer:?}");
            let (head, agreed) = told.recv().await.unwrap();
            assert!(agreed, "{url}: {head}");
        }
    }
    assert_eq!(reached.load(Ordering::SeqCst), 2);

    let missing = Config {
        proxy_password_file: Some(dir.path().join("missing")),
        ..asked.clone()
    };
    let error = Http::new(&missing, keys()).err().unwrap();
    assert!(
        error.starts_with("dispatcher.proxy_password_file: "),
        "{error}"
    );

    let wrong = Config {
        proxy_password: Some(Secret::new("hunter3")),
        ..asked.clone()
    };
    let nobody = Config {
        proxy_username: None,
        ..asked
    };
    for (config, says) in [
        (wrong, "refuses dispatcher.proxy_username with its password"),
        (
            nobody,
            "wants authentication; set dispatcher.proxy_username",
        ),
    ] {
        let http = http(&config);
        for url in ["http://crm.example.com/", "https://crm.example.com/"] {
            let answer = sent(&http, url).await;
            assert_eq!(answer.outcome, Outcome::Proxy, "{url}: {answer:?}");
            let error = answer.error.as_deref().unwrap();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!told.recv().await.unwrap().1);
            let shown = format!(
                "{answer:?} {config:?} {}",
                serde_json::to_string(&config).unwrap()
            );
            assert!(!shown.contains("hunter"), "{shown}");
            // No webhook answers for it (R14).
            assert!(Outcome::is_ours(answer.outcome.label()));
        }
    }
    assert_eq!(reached.load(Ordering::SeqCst), 2);
}
