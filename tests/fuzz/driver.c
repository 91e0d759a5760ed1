/* libFuzzer's side of the harness: an interpreter, and three functions of tests/fuzz/checks.py and
   generate.py called with bytes. PYTHONHOME and PYTHONPATH say where everything is. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int fuzz_allocation_countdown = 0;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static PyObject *check;
static PyObject *mutate;

static void fail(void) {
    PyErr_Print();
    fflush(stderr);
    abort();
}

static PyObject *function(const char *module, const char *name) {
    PyObject *from = PyImport_ImportModule(module);
    PyObject *found = from == NULL ? NULL : PyObject_GetAttrString(from, name);
    Py_XDECREF(from);
    if (found == NULL) {
        fail();
    }
    return found;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    Py_InitializeEx(0);
    check = function("tests.fuzz.checks", "check");
    mutate = function("tests.fuzz.generate", "mutate");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *result = PyObject_CallFunction(check, "y#", (const char *)data, (Py_ssize_t)size);
    if (result == NULL) {
        fail();
    }
    Py_DECREF(result);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed) {
    /* Three times out of four libFuzzer's own changes, else one that knows the structure. */
    if (seed % 4 != 0) {
        return LLVMFuzzerMutate(data, size, max_size);
    }
    PyObject *changed = PyObject_CallFunction(
        mutate, "y#I", (const char *)data, (Py_ssize_t)size, seed / 4);
    char *bytes = NULL;
    Py_ssize_t length = 0;
    if (changed == NULL || PyBytes_AsStringAndSize(changed, &bytes, &length) < 0) {
        fail();
    }
    if ((size_t)length > max_size) {
        length = (Py_ssize_t)max_size;
    }
    memcpy(data, bytes, (size_t)length);
    Py_DECREF(changed);
    return (size_t)length;
}
