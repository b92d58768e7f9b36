//! `outrigger ca request`: an authority that signs is told from one that does not, and why not.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::mesh::{binaries, identity, ports};
use harness::process::Output;
use harness::{Control, Fabric, wait};

struct Question<'a> {
    authority: String,
    roots: &'a Path,
    token: &'a Path,
    identity: String,
}

impl Question<'_> {
    /// From the node of the authority.
    fn ask(&self, fabric: &Fabric, more: &[&str]) -> Result<Output> {
        let mut command = fabric.node().command(binaries::path("outrigger")?);
        command
            .args([
                "ca",
                "request",
                "--authority",
                &self.authority,
                "--identity",
                &self.identity,
            ])
            .arg("--authority-roots")
            .arg(self.roots)
            .arg("--token")
            .arg(self.token)
            .args(more);
        Output::of(command, wait::patiently(wait::SOON * 3))
    }

    fn refused(&self, fabric: &Fabric, why: &[&str]) -> Result<()> {
        let output = self.ask(fabric, &[])?;
        assert_eq!(output.code(), Some(1), "{output:?}");
        assert_eq!(output.stdout, "", "{output:?}");
        for words in why {
            assert!(output.stderr.contains(words), "{words}: {output:?}");
        }
        Ok(())
    }
}

#[test]
fn an_authority_that_signs_is_told_from_one_that_does_not_with_the_reason() -> Result<()> {
    let fabric = Fabric::new("ca-request")?;
    let mut control = Control::start(&fabric)?;
    let stranger = Control::start_another(&fabric, "stranger", ports::CONTROL + 1)?;
    let (root, token) = (control.root(), control.token(&identity("client"))?);
    let good = || Question {
        authority: control.authority(),
        roots: &root,
        token: &token,
        identity: identity("client"),
    };

    let said = good().ask(&fabric, &[])?.ok()?;
    assert!(
        said.contains(&format!("{} has signed a certificate", control.authority())),
        "{said}"
    );
    assert!(
        said.contains(&format!("identity  {}\n", identity("client"))),
        "{said}"
    );
    assert!(
        said.contains("ends      in 23h") && said.contains("roots     1\n"),
        "{said}"
    );

    let other = Question {
        identity: identity("other"),
        ..good()
    };
    other.refused(&fabric, &["PermissionDenied", "use a token that was made for"])?;
    let strangers = Question {
        roots: &stranger.root(),
        ..good()
    };
    strangers.refused(&fabric, &["cannot reach the authority", "chains to"])?;
    let forged = fabric.scratch().join("forged");
    fs::write(&forged, "not-a-token")?;
    let forged = Question {
        token: &forged,
        ..good()
    };
    forged.refused(&fabric, &["Unauthenticated", "put a valid token into"])?;
    let absent = Question {
        token: Path::new("/no/such/token"),
        ..good()
    };
    absent.refused(&fabric, &["cannot read /no/such/token"])?;

    let late = good();
    control.stop();
    late.refused(&fabric, &["cannot reach the authority"])?;
    let began = Instant::now();
    let output = late.ask(&fabric, &["--wait", "3s"])?;
    assert_eq!(output.code(), Some(1), "{output:?}");
    assert!(
        began.elapsed() >= Duration::from_secs(3),
        "it is asked again for so long"
    );
    Ok(())
}

/// What `helm test` relies on: control may be a moment late.
#[test]
fn an_authority_that_comes_while_it_is_waited_for_is_asked_again() -> Result<()> {
    let fabric = Fabric::new("ca-request-late")?;
    let mut control = Control::start(&fabric)?;
    let (root, token) = (control.root(), control.token(&identity("client"))?);
    let question = Question {
        authority: control.authority(),
        roots: &root,
        token: &token,
        identity: identity("client"),
    };
    let at = control.listeners()[0];
    control.stop();
    let node = fabric.node().netns();
    let in_its_place = node.run(move || TcpListener::bind(at))??;
    thread::scope(|scope| {
        let asked = scope.spawn(|| question.ask(&fabric, &["--wait", "40s"]));
        // Asked once, in vain.
        drop(in_its_place.accept()?);
        drop(in_its_place);
        control.restart()?;
        let said = asked.join().expect("it does not panic")?.ok()?;
        assert!(said.contains("has signed a certificate"), "{said}");
        Ok(())
    })
}
