"""What pods promise besides the contract of all runtimes: refusals in a cluster's words, and a way in from outside.

The API server is :mod:`tests.support.kube_api`; its pods are real containers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import psycopg
import pytest

from devstack.workspace import Workspace
from drd.cancel import CancelToken
from drd.errors import ScratchError
from drd.scratch import kubernetes
from tests.support.scratch_clients import login
from tests.support.scratch_sites import KubernetesSite, spec
from tests.support.services import present

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shared(docker_host: str, workspace: Workspace) -> Iterator[KubernetesSite]:
    """Give the site of pods, one for this file."""
    with present():
        found = KubernetesSite(docker_host, workspace.directory("kubernetes"))
    yield found
    found.api.close()


@pytest.fixture
def site(shared: KubernetesSite) -> Iterator[KubernetesSite]:
    """Give the site, as it should be, and see that a test leaves nothing in it."""
    yield shared
    shared.api.denied.clear()
    shared.api.quota = shared.api.unschedulable = ""
    assert shared.leftovers() == []


def refusal(site: KubernetesSite, **options: object) -> ScratchError:
    """Return the error of a start that cannot succeed."""
    with pytest.raises(ScratchError) as caught, site.runtime(**options).start(spec("redis"), CancelToken()):
        pass
    return caught.value


def test_an_image_that_cannot_be_pulled_is_named_with_the_events(site: KubernetesSite) -> None:
    """The reason is the node's own, and what it said about it is there."""
    error = refusal(site, images={"redis": "registry.invalid/none:1"})
    assert "ImagePullBackOff" in error.message
    assert "registry.invalid/none:1" in error.message
    assert "Failed to pull image" in error.message


def test_no_node_with_room_is_named(site: KubernetesSite) -> None:
    """A pod that stays unscheduled is an error with the scheduler's words, once patience is over."""
    site.api.unschedulable = "0/3 nodes are available: 3 Insufficient memory."
    error = refusal(site, ready_timeout_s=1.0)
    assert "Unschedulable" in error.message
    assert "3 Insufficient memory" in error.message


def test_a_quota_is_named(site: KubernetesSite) -> None:
    """The pod is refused at once, and what was made before it is gone."""
    site.api.quota = "drills, requested: limits.memory=1Gi, used: limits.memory=8Gi, limited: limits.memory=8Gi"
    error = refusal(site)
    assert "exceeded quota: drills" in error.message
    assert "quota" in error.hint


def test_a_missing_right_is_named_and_checked(site: KubernetesSite) -> None:
    """The error and ``drd check`` say which right it is."""
    site.api.denied.add(("create", "networkpolicies"))
    error = refusal(site)
    assert 'cannot create resource "networkpolicies"' in error.message
    assert "drills-kubernetes" in error.hint
    [item] = site.runtime().check()
    assert item.outcome == "failed"
    assert "may not create networkpolicies" in item.detail


def test_no_right_beyond_the_documented_is_used(site: KubernetesSite) -> None:
    """Every request of a whole life, kept and reaped too, is one of the verbs that the documentation asks for."""
    site.api.requests.clear()
    with site.runtime().start(spec("redis"), CancelToken()) as server:
        server.keep()
    site.runtime(later_s=601).reap()
    asked = {tuple(request.split()) for request in site.api.requests}
    assert asked <= {(verb, resource) for verb, resource in kubernetes.RIGHTS}
    assert ("create", "pods") in asked


def test_an_api_server_that_is_away_is_named(site: KubernetesSite, tmp_path) -> None:
    """Neither a drill nor a check hangs, and nobody reads a traceback."""
    away = tmp_path / "kubeconfig"
    text = site.api.kubeconfig.read_text()
    port = text.partition("127.0.0.1:")[2].split()[0]
    away.write_text(text.replace(f":{port}", ":1"))
    assert "does not answer" in refusal(site, kubeconfig=away).message
    [item] = site.runtime(kubeconfig=away).check()
    assert item.outcome == "failed"


def test_a_pod_is_locked_in_and_holds_no_secret(site: KubernetesSite) -> None:
    """It meets the level restricted; its password is in the secret alone; a policy names drd as its only peer."""
    with site.runtime().start(spec("postgres"), CancelToken()) as server:
        name, password = server.endpoint.name, server.endpoint.password.reveal()
        pod, secret, policy = (site.api.objects[kind, name] for kind in ("pods", "secrets", "networkpolicies"))
        body = pod["spec"]
        assert body["automountServiceAccountToken"] is False
        assert body["securityContext"]["runAsNonRoot"] is True
        assert body["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = body["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert (
            container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == str(1 << 30)
        )
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(body)
        assert all(set(volume) == {"name", "emptyDir"} for volume in body["volumes"])
        assert body["activeDeadlineSeconds"] == 600
        assert password not in json.dumps([pod, policy])
        assert secret["stringData"]["DRD_SCRATCH_PASSWORD"] == password
        drd = [{"ipBlock": {"cidr": f"{site.own_address}/32"}}]
        assert policy["spec"]["ingress"] == [{"from": drd}]
        assert policy["spec"]["egress"] == [{"to": drd}]
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        for other in (secret, policy):
            assert [owner["uid"] for owner in other["metadata"]["ownerReferences"]] == [pod["metadata"]["uid"]]
        assert base64.b64encode(password.encode()).decode() not in json.dumps(pod)


def test_from_outside_the_cluster_a_port_leads_in(site: KubernetesSite) -> None:
    """Through the API server rows go both ways in bulk, on several connections, and the port ends with the server."""
    with site.runtime(reach="forward", own_address=None).start(spec("postgres"), CancelToken()) as server:
        url, password = server.endpoint.url, server.endpoint.password.reveal()
        assert "127.0.0.1" in url
        assert server.endpoint.listen_host == ""
        with psycopg.connect(url, password=password) as one, psycopg.connect(url, password=password) as two:
            one.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 20) AS text FROM generate_series(1, 20000) i")
            one.commit()
            with two.cursor() as cursor, cursor.copy("COPY t TO STDOUT") as copy:
                assert sum(len(block) for block in copy) > 12_000_000
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, password=password, connect_timeout=2)


def test_a_server_that_must_fetch_is_refused_from_outside(site: KubernetesSite) -> None:
    """A ClickHouse that could not reach drd is not even started."""
    outside = site.runtime(reach="forward", own_address=None)
    with (
        pytest.raises(ScratchError, match="outside the cluster") as caught,
        outside.start(spec("clickhouse"), CancelToken()),
    ):
        pass
    assert "own_address" in caught.value.hint


def test_a_pod_that_somebody_deletes_is_the_end_and_is_named(site: KubernetesSite) -> None:
    """Such as a person, or an eviction: the drill learns that its server is gone, not that the backup is bad."""
    with site.runtime().start(spec("redis"), CancelToken()) as server:
        assert login("redis", server.endpoint.url, server.endpoint.password.reveal()) == "2"
        site.api._delete("pods", server.endpoint.name)
        assert ("secrets", server.endpoint.name) not in site.api.objects
        import time

        until = time.monotonic() + 10
        while not (said := server.death()) and time.monotonic() < until:
            time.sleep(0.1)
        assert "its pod was deleted" in said
