# The image of the service: an interpreter, its standard library, the service, and nothing else. No shell.
#
#   docker build --tag anthro-asgi .        # or: buildah bud --format docker --tag anthro-asgi .
#
# BASE is any Debian, with Python >= 3.11 or without: where there is none, Debian's own is installed. Behind a proxy that
# signs for others, `--secret id=ca,src=FILE` gives pip the certificates to trust.

ARG BASE=debian:12-slim
FROM ${BASE} AS build

RUN python3 -c 'import sys, venv, ensurepip, ssl; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
        && test -e /etc/ssl/certs/ca-certificates.crt \
    || { apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
            python3 python3-venv ca-certificates; }

# Two environments: what builds is in one, what is shipped in the other.
WORKDIR /build
COPY deploy/requirements.txt deploy/requirements-build.txt deploy/
RUN --mount=type=secret,id=ca \
    if test -e /run/secrets/ca; then export PIP_CERT=/run/secrets/ca; fi \
    && export PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ONLY_BINARY=:all: PIP_REQUIRE_HASHES=1 \
    && python3 -m venv /opt/build \
    && python3 -m venv --without-pip /opt/anthro-asgi \
    && /opt/build/bin/pip install --requirement deploy/requirements-build.txt \
    && /opt/build/bin/pip --python /opt/anthro-asgi/bin/python install --requirement deploy/requirements.txt

COPY pyproject.toml README.md LICENSE ./
COPY anthro_asgi anthro_asgi/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/build/bin/pip --python /opt/anthro-asgi/bin/python install --no-deps --no-compile dist/*.whl

# Bytecode that is never compared with its source: nothing can change either in an image that is not written to.
COPY deploy/image deploy/image/
RUN rm -f /opt/anthro-asgi/bin/activate* /opt/anthro-asgi/bin/Activate* \
    && python3 deploy/image/rootfs.py /opt/anthro-asgi /rootfs \
    && python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -s /rootfs -p / /rootfs/usr /rootfs/opt \
    && mkdir /rootfs/usr/share/sbom \
    && python3 deploy/image/sbom.py /opt/anthro-asgi/lib/python3*/site-packages /rootfs \
        > /rootfs/usr/share/sbom/anthro-asgi.cdx.json \
    && chroot /rootfs /opt/anthro-asgi/bin/anthro-asgi --version


FROM scratch
COPY --from=build /rootfs /
LABEL org.opencontainers.image.title="anthro-asgi" \
    org.opencontainers.image.description="The Anthropic Messages API in front of any inference engine" \
    org.opencontainers.image.licenses="Apache-2.0"

# Within a container, loopback would be nobody's. Whoever listens on a Unix socket (ANTHRO_ASGI_UDS) empties the host.
ENV PATH=/opt/anthro-asgi/bin:/usr/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    ANTHRO_ASGI_HOST=0.0.0.0

USER 65532:65532
WORKDIR /
EXPOSE 8484
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/opt/anthro-asgi/bin/anthro-asgi", "health"]
ENTRYPOINT ["/opt/anthro-asgi/bin/anthro-asgi"]
CMD ["serve"]
