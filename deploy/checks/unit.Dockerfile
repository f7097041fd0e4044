# A machine with systemd, to try the unit on:
#
#   docker build --file deploy/checks/unit.Dockerfile --build-arg IMAGE=anthro-asgi --tag machine deploy

ARG BASE=debian:12-slim
ARG IMAGE
FROM ${IMAGE} AS service

FROM ${BASE}
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 systemd systemd-sysv procps
COPY --from=service /opt/anthro-asgi /opt/anthro-asgi
COPY anthro-asgi.service /etc/systemd/system/
# What would change the kernel of the host stays off: the container has to be a privileged one.
RUN systemctl mask systemd-sysctl systemd-modules-load systemd-binfmt systemd-remount-fs systemd-udevd \
    && systemctl enable anthro-asgi \
    && install -d -m 0755 /etc/anthro-asgi \
    && (umask 077 && echo sesame > /etc/anthro-asgi/api-keys)
# Credentials are mounts, which have to be seen outside of where they are made; in a container nobody sees to that.
CMD ["sh", "-c", "mount --make-rshared / && exec /sbin/init"]
