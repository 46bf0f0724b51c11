FROM scratch
COPY . /context/
LABEL from=nested
