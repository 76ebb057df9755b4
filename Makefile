.PHONY: build
