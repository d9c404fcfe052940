package main

import (
	"fmt"
	"io"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// kstatus reads an object as JSON and writes two lines: the status that Flux and `helm --wait` see in it, and the message.
func kstatus(in io.Reader, out io.Writer) error {
	var object unstructured.Unstructured
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	// Its own reader keeps whole numbers whole.
	if err := object.UnmarshalJSON(text); err != nil {
		return err
	}
	result, err := status.Compute(&object)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n%s\n", result.Status, result.Message)
	return err
}
