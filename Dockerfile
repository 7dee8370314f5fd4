# sdbuild on Linux. It has not been built yet: images are no part of the tests.
#   docker build --build-arg PIP_EXTRA_INDEX_URL=… -t sdbuild .
#   docker run --rm -v "$PWD:/project" sdbuild build
# The argument names an index with CPU builds of torch: the usual ones bring gigabytes of CUDA along,
# which sdbuild does not use.

# For .devcontainer: what scripts/setup needs.
FROM python:3.11 AS develop
RUN useradd --create-home --uid 1000 --shell /bin/bash developer
USER developer

FROM python:3.11-slim
ARG PIP_EXTRA_INDEX_URL
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt "/src[networks,s3]" \
    && useradd --create-home --uid 1000 builder \
    && install --directory --owner=builder /project
USER builder
WORKDIR /project
ENTRYPOINT ["sdbuild"]
CMD ["--help"]
